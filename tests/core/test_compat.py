"""In processes of their own: what a library registers at import can't be taken back."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_torchvision_imports_and_resizes_after_preparing_twice() -> None:
    done = run(
        "from fieldscope.core.compat import prepare_torchvision as prepare\n"
        "prepare(); prepare()\n"
        "import torch, torchvision\n"
        "from torchvision.transforms.v2 import functional as F\n"
        "assert F.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)\n"
        "prepare()\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("loads", [True, False])
def test_operators_are_declared_only_where_the_compiled_part_cannot_load(loads: bool) -> None:
    """Declaring them beside a compiled part that defines them would be an error of its own."""
    done = run(
        "import torch, core.compat as compat\n"
        f"compat._loads_compiled_part = lambda folder: {loads}\n"
        "compat.prepare_torchvision()\n"
        "assert [hasattr(torch.ops.torchvision, n) for n in ('nms', 'qnms')] == [" + f"{not loads}] * 2"
    )
    assert done.returncode == 0, done.stderr


def test_nothing_happens_where_torchvision_is_not_installed() -> None:
    done = run(
        "import fieldscope.core.compat as compat\n"
        "compat.find_spec = lambda name: None\n"
        "compat.prepare_torchvision()\n"
        "import torch; assert not hasattr(torch.ops.torchvision, 'nms')\n"
    )
    assert done.returncode == 0, done.stderr

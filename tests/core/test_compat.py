"""In processes of their own: what a library registers at import can't be taken back."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchvision_imports_and_resizes_after_preparing_twice() -> None:
    run(
        "from fieldscope.core.compat import prepare_torchvision as prepare\n"
        "prepare(); prepare()\n"
        "import torch, torchvision\n"
        "from torchvision.transforms.v2 import functional as F\n"
        "assert F.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)\n"
        "prepare()\n"
    )


def test_operators_are_declared_only_where_torchvision_is_and_its_compiled_part_cannot_load() -> None:
    """Declaring them beside a compiled part that defines them would be an error of its own."""
    run(
        "import torch, fieldscope.core.compat as compat\n"
        "def declared():\n"
        "    compat.prepare_torchvision()\n"
        "    return [hasattr(torch.ops.torchvision, name) for name in ('nms', 'qnms')]\n"
        "find_spec, compat.find_spec = compat.find_spec, lambda name: None\n"
        "assert declared() == [False, False]\n"
        "compat.find_spec, compat._loads_compiled_part = find_spec, lambda folder: True\n"
        "assert declared() == [False, False]\n"
        "compat._loads_compiled_part = lambda folder: False\n"
        "assert declared() == [True, True]\n"
    )

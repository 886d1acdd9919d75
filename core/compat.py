"""What the libraries underneath need before they can be imported.

PyPI's torchvision wheel is built for CUDA. Beside a CPU build of torch its compiled part can't load, and then the
import of torchvision itself fails, because it registers shapes for two operators, `nms` and `qnms`, that are not
defined. Fieldscope never calls them: CLIP's and LLaVA's preprocessing is pure tensor code. So where the compiled part
can't load, the two are declared with their signatures and no implementation, and the import goes through.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")


def prepare_torchvision() -> None:
    """Make `import torchvision` succeed beside any build of torch.

    Call it before importing open_clip or the vision code of transformers. It does nothing where torchvision is not
    installed, is imported already, or can load its compiled part; calling it again is free.
    """
    if "torchvision" in sys.modules:
        return
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return

    if not _loads_compiled_part(Path(spec.origin).parent):
        for name in _OPERATORS:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", _SIGNATURE)


def _loads_compiled_part(folder: Path) -> bool:
    """Whether torchvision's own operators can be loaded into this torch; loading them twice is harmless."""
    for path in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        if path.is_file():
            try:
                torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return True
    return False

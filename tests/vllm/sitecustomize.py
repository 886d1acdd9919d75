"""Python runs this file as it starts, where it lies in an environment's site-packages (`setup.sh` puts it there).

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its import fails unless two operators are defined
first; nothing in vLLM calls them. Every process that vLLM spawns imports torchvision by itself, so they are defined
from an import hook, the moment before.
"""

import importlib.abc
import sys


class _DefineOperators(importlib.abc.MetaPathFinder):
    """Finds nothing. It sees torchvision being looked for, defines the operators, and is gone."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for name in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


sys.meta_path.insert(0, _DefineOperators())

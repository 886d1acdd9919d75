"""What both training scripts share: optimisers, the learning-rate schedule, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fieldscope.core.files import replacing


def optimisers(modules: Iterable[nn.Module], matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Muon on the transformer blocks' weight matrices, AdamW on everything else (embeddings, heads, norms, biases)."""
    matrices, others, decayless = [], [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            in_block = ".resblocks." in f".{name}" or ".layers." in f".{name}"
            if in_block and parameter.ndim == 2:
                matrices.append(parameter)
            elif parameter.ndim >= 2:
                others.append(parameter)
            else:
                decayless.append(parameter)
    adamw = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.02}, {"params": decayless, "weight_decay": 0.0}],
        lr=other_lr,
        betas=(0.9, 0.98),
    )
    muon = torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]


class Schedule:
    """Linear warm-up, then a cosine to a twentieth, over `steps` steps, for several optimisers at once."""

    def __init__(self, optimisers: list[torch.optim.Optimizer], steps: int, warmup: int) -> None:
        self.optimisers, self.steps, self.warmup = optimisers, steps, warmup
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def step(self, step: int) -> None:
        """Set the rates for `step`, apply the gradients, clear them."""
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * self.factor(step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def save_checkpoint(path: Path, modules: dict[str, nn.Module], optims: list[torch.optim.Optimizer], step: int) -> None:
    """Write a checkpoint at once or not at all."""
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimisers": [optimiser.state_dict() for optimiser in optims],
    }
    with replacing(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, modules: dict[str, nn.Module], optims: list[torch.optim.Optimizer]) -> int:
    """Restore a checkpoint in place; returns the next step (0 where there is none). Tensors only: no pickled code."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for optimiser, saved in zip(optims, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"])

"""The training loop: a loss for each step, AdamW, and checkpoints from which it goes on to the same weights, bit for
bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fieldscope.core.errors import ConfigError, first_line
from fieldscope.core.files import replacing
from fieldscope.retrieval.progress import Report

_WARM_UP = 0.1  # of all steps
_LOSSES = "losses"
_KEPT = ("step", "exp_avg", "exp_avg_sq")

Parameters = dict[str, torch.nn.Parameter]


@dataclass(frozen=True)
class Schedule:
    """So many steps, the greatest learning rate (after a linear warm-up, before a cosine to a twentieth), and after how
    many steps a checkpoint is written."""

    steps: int
    rate: float
    checkpoint_every: int = 100

    def factor(self, step: int) -> float:
        """The share of the rate that a step has."""
        warm = max(1, round(_WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def run_steps(
    module: torch.nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    schedule: Schedule,
    checkpoint: Path,
    settings: str,
    report: Report,
) -> list[float]:
    """Train the weights that require a gradient; the loss of each step. A `checkpoint` that is there, from these
    `settings`, is gone on from, and is removed by the caller when its result is kept. Raises `ConfigError` for one that
    is broken or from other settings."""
    parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
    optimiser = torch.optim.AdamW(_groups(parameters.values()), lr=schedule.rate, betas=(0.9, 0.98))
    losses = _restored(checkpoint, parameters, optimiser, settings)
    module.train()
    for step in range(len(losses), schedule.steps):
        report(step, schedule.steps)
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * schedule.factor(step)
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < schedule.steps:
            _write(checkpoint, parameters, optimiser, losses, settings)
    report(schedule.steps, schedule.steps)
    module.eval()
    return losses


def _groups(parameters: Iterable[torch.nn.Parameter]) -> list[dict[str, object]]:
    """Matrices decay; biases and norms do not."""
    every = list(parameters)
    return [
        {"params": [each for each in every if each.ndim >= 2], "weight_decay": 0.01},
        {"params": [each for each in every if each.ndim < 2], "weight_decay": 0.0},
    ]


def _write(
    path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer, losses: list[float], settings: str
) -> None:
    """Write a checkpoint at once or not at all."""
    tensors = {_LOSSES: torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in parameters.items():
        tensors[f"weights.{name}"] = parameter.detach().contiguous()
        for kept, value in optimiser.state[parameter].items():  # none for weights that no step has used yet
            tensors[f"{kept}.{name}"] = value.contiguous()
    with replacing(path, durable=True) as partial:
        save_file(tensors, partial, metadata={"settings": settings})


def _restored(path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer, settings: str) -> list[float]:
    """The losses of the steps that a checkpoint has behind it, whose weights and averages are put back; none where
    there is no checkpoint."""
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("settings") != settings:
                raise ConfigError(f"{path} was made with other settings; give another folder, or remove that file")
            names = frozenset(file.keys())
            losses: list[float] = file.get_tensor(_LOSSES).tolist()
            for name, parameter in parameters.items():
                parameter.data.copy_(file.get_tensor(f"weights.{name}"))
                used = [kept for kept in _KEPT if f"{kept}.{name}" in names]
                if used:
                    optimiser.state[parameter] = {kept: file.get_tensor(f"{kept}.{name}") for kept in used}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"{path} can't be read ({first_line(error)}); remove it, and rerun this command to train from the stage's "
            "start"
        ) from error
    return losses

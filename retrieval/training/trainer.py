"""One stage of training after the other: each has a model's folder and a record of how it went, and is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.reading import file_bytes, load_json
from fieldscope.retrieval.model_folder import folder_fingerprint
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.learner import Learner
from fieldscope.retrieval.training.loop import Schedule, run_steps
from fieldscope.retrieval.training.queries import TrainingSet
from fieldscope.retrieval.training.ranking import measure

START = "start"

Open = Callable[[Path], Learner]
"""Opens the model in a folder, ready for all readings that come."""

LossOf = Callable[[Learner, int], torch.Tensor]
"""The loss of a step."""

Progress = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True)
class Plan:
    """How a retriever is trained: steps of the first two stages and of the one on texts, queries in a batch, learning
    rates, the temperature of the similarities, and the seed of all that is drawn."""

    steps: int = 400
    text_steps: int = 100
    batch: int = 64
    rate: float = 1e-3
    text_rate: float = 2e-4
    temperature: float = 0.05
    seed: int = 0
    checkpoint_every: int = 50


@dataclass(frozen=True)
class Stage:
    """A finished stage: its model's folder, its losses (about ten means, in order), figures on the validation queries,
    and the numbers of the hard negatives that it learned from."""

    name: str
    folder: str
    losses: Sequence[float] = ()
    figures: Mapping[str, Any] | None = None
    mined: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Trainer:
    """Trains stages below the folder `out`. `sets` are the fingerprints of what is learned from."""

    open_model: Open
    start: Path
    validation: TrainingSet | None
    plan: Plan
    out: Path
    progress: Progress
    sets: Mapping[str, str | None]

    def begin(self) -> Stage:
        """Record the settings, and measure the start model. Raises `ConfigError` where `out` was begun with others."""
        path, settings = self.out / "settings.json", self._settings()
        if not path.is_file():
            replace_file(path, json.dumps(settings, indent=2) + "\n")
        elif load_json(file_bytes(path)) != settings:
            raise ConfigError(f"{self.out} was begun with other settings ({path.name}); give another folder")
        record = self.out / f"{START}.json"
        if not record.is_file():
            figures = self._figures(self.open_model(self.start), START)
            _write(record, Stage(START, str(self.start), figures=figures))
        return _read(record)

    def stage(
        self,
        name: str,
        start: Path,
        loss_of: LossOf,
        steps: int,
        rate: float,
        mined: Mapping[str, int] | None = None,
    ) -> Stage:
        """Train the model in `start` for so many steps; a stage that is finished is read back, and one that was begun
        is gone on with."""
        record, folder = self.out / f"{name}.json", self.out / name
        if record.is_file():
            return _read(record)
        learner = self.open_model(start)
        checkpoint = self.out / f"{name}.checkpoint.safetensors"
        schedule = Schedule(steps, rate, self.plan.checkpoint_every)
        with self.progress(f"training: {name}") as report:
            losses = run_steps(
                learner.module,
                lambda step: loss_of(learner, step),
                schedule,
                checkpoint,
                fingerprint(self._settings()),
                report,
            )
        learner.write(folder)
        _write(record, Stage(name, str(folder), thinned(losses), self._figures(learner, name), mined))
        checkpoint.unlink(missing_ok=True)
        return _read(record)

    def _settings(self) -> dict[str, Any]:
        """All that decides the weights."""
        plan = asdict(replace(self.plan, checkpoint_every=0))
        return {"plan": plan, "start": folder_fingerprint(self.start, START), **self.sets}

    def _figures(self, learner: Learner, name: str) -> Mapping[str, Any] | None:
        if self.validation is None:
            return None
        learner.module.eval()
        with self.progress(f"validation: {name}") as report:
            return asdict(measure(learner, self.validation, report))


def thinned(losses: Sequence[float], parts: int = 10) -> tuple[float, ...]:
    """The means of about ten stretches of equal length."""
    length = max(1, len(losses) // parts)
    stretches = [losses[at : at + length] for at in range(0, len(losses), length)]
    return tuple(round(sum(each) / len(each), 4) for each in stretches)


def _write(path: Path, stage: Stage) -> None:
    replace_file(path, json.dumps(asdict(stage), indent=2) + "\n")


def _read(path: Path) -> Stage:
    return Stage(**load_json(file_bytes(path)))

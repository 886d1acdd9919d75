"""The stages of MM-Embed's training (arXiv 2411.02571): random negatives, mined ones, and texts.

`random` learns from the other positives of a batch. It mines hard negatives, with which `mined` learns from the start
model again. `texts` goes on from `mined` over the mixture of the same queries and a set of texts: negatives of the
right modality are mined again, those of the wrong one are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.reading import file_bytes, load_json
from fieldscope.retrieval.model_folder import folder_fingerprint
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.batches import Source, draw_batch
from fieldscope.retrieval.training.learner import Learner
from fieldscope.retrieval.training.loop import Schedule, run_steps
from fieldscope.retrieval.training.mining import TOP, Mined, counts, mine_all, read_mined, write_mined
from fieldscope.retrieval.training.queries import TrainingSet
from fieldscope.retrieval.training.ranking import measure, rankings

RANDOM, MINED, TEXTS = "random", "mined", "texts"
_NUMBERS = {RANDOM: 1, MINED: 2, TEXTS: 3}

Open = Callable[[Path], Learner]
"""Opens the model in a folder, ready for all readings that come."""

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
    """A finished stage: its model's folder, its losses (ten means, in order), figures on the validation queries, and
    the numbers of the hard negatives that it learned from."""

    name: str
    folder: str
    losses: tuple[float, ...]
    figures: Mapping[str, Any] | None = None
    mined: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Stages:
    """What the stages share: the start model's folder, the sets, the plan, and the folder that all is written to."""

    open_model: Open
    start: Path
    training: TrainingSet
    texts: TrainingSet | None
    validation: TrainingSet | None
    plan: Plan
    out: Path
    progress: Progress

    def run(self) -> Iterator[Stage]:
        """Train stage by stage; what is finished is read, and what was begun is gone on with. Raises `ConfigError`
        where the folder was begun with other settings."""
        settings = self._settings()
        yield self._start()
        yield self._stage(RANDOM, self.start, [Source(self.training)], settings)
        mined = self._mined(RANDOM, self.training)
        sources = [Source(self.training, mined)]
        yield self._stage(MINED, self.start, sources, settings, counts(mined.values()))
        if self.texts is None:
            return
        again = {
            query: replace_wrong(found, mined[query]) for query, found in self._mined(MINED, self.training).items()
        }
        sources = [Source(self.training, again), Source(self.texts, self._mined(MINED, self.texts))]
        found = [each for source in sources for each in (source.mined or {}).values()]
        yield self._stage(TEXTS, self.out / MINED, sources, settings, counts(found))

    def _settings(self) -> str:
        """The fingerprint of all that decides the weights."""
        said = {
            "plan": asdict(replace(self.plan, checkpoint_every=0)),
            "start": folder_fingerprint(self.start, "start"),
            "training": self.training.fingerprint,
            "texts": self.texts.fingerprint if self.texts else None,
        }
        path, settings = self.out / "settings.json", fingerprint(said)
        if path.is_file():
            known = load_json(file_bytes(path))
            if known != said:
                raise ConfigError(f"{self.out} was begun with other settings ({path.name}); give another folder")
        else:
            replace_file(path, json.dumps(said, indent=2) + "\n")
        return settings

    def _start(self) -> Stage:
        """The start model's own figures."""
        record = self.out / "start.json"
        if not record.is_file():
            figures = self._figures(self.open_model(self.start), "start")
            _write_stage(record, Stage("start", str(self.start), (), figures))
        return _read_stage(record)

    def _stage(
        self,
        name: str,
        start: Path,
        sources: Sequence[Source],
        settings: str,
        mined: Mapping[str, int] | None = None,
    ) -> Stage:
        record, folder = self.out / f"{name}.json", self.out / name
        if record.is_file():
            return _read_stage(record)
        learner, plan = self.open_model(start), self.plan
        seed = (plan.seed, _NUMBERS[name])
        steps, rate = (plan.text_steps, plan.text_rate) if name == TEXTS else (plan.steps, plan.rate)
        checkpoint = self.out / f"{name}.checkpoint.safetensors"
        loss_of = partial(contrastive_loss, learner, sources, plan, seed)
        schedule = Schedule(steps, rate, plan.checkpoint_every)
        with self.progress(f"training: {name}") as report:
            losses = run_steps(learner.module, loss_of, schedule, checkpoint, settings, report)
        learner.write(folder)
        _write_stage(record, Stage(name, str(folder), thinned(losses), self._figures(learner, name), mined))
        checkpoint.unlink(missing_ok=True)
        return _read_stage(record)

    def _mined(self, stage: str, training: TrainingSet) -> dict[str, Mined]:
        """The negatives that a finished stage's model mines in a set, from their file once they are there."""
        path = self.out / f"negatives-{stage}-{training.name}.jsonl"
        if not path.is_file():
            learner = self.open_model(self.out / stage)
            with self.progress(f"mining with {stage}") as report:
                mined = mine_all(training, rankings(learner, training, TOP, report))
            write_mined(path, mined.values())
        return read_mined(path)

    def _figures(self, learner: Learner, name: str) -> Mapping[str, Any] | None:
        if self.validation is None:
            return None
        learner.module.eval()
        with self.progress(f"validation: {name}") as report:
            return asdict(measure(learner, self.validation, report))


def replace_wrong(mined: Mined, kept: Mined) -> Mined:
    """Newly mined negatives with the earlier ones of the wrong modality."""
    return mined.model_copy(update={"wrong_modality": kept.wrong_modality})


def contrastive_loss(
    learner: Learner, sources: Sequence[Source], plan: Plan, seed: tuple[int, ...], step: int
) -> torch.Tensor:
    """InfoNCE: each query has to find its positive among the documents of its batch."""
    batch = draw_batch(sources, plan.batch, seed, step)
    similarities = learner.vectors(batch.queries) @ learner.vectors(batch.documents).T
    scores = (similarities / plan.temperature).masked_fill(torch.from_numpy(batch.ignored), float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.tensor(batch.positives))


def thinned(losses: Sequence[float], parts: int = 10) -> tuple[float, ...]:
    """The means of about ten stretches of equal length."""
    length = max(1, len(losses) // parts)
    stretches = [losses[at : at + length] for at in range(0, len(losses), length)]
    return tuple(round(sum(each) / len(each), 4) for each in stretches)


def _write_stage(path: Path, stage: Stage) -> None:
    replace_file(path, json.dumps(asdict(stage), indent=2) + "\n")


def _read_stage(path: Path) -> Stage:
    return Stage(**{**load_json(file_bytes(path))})

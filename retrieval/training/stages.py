"""The stages of MM-Embed's training (arXiv 2411.02571): random negatives, mined ones, and texts.

`random` learns from the other positives of a batch. It mines hard negatives, with which `mined` learns from the start
model again. `texts` goes on from `mined` over the mixture of the same queries and a set of texts: negatives of the
right modality are mined again, those of the wrong one are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fieldscope.retrieval.training.batches import Source, draw_batch
from fieldscope.retrieval.training.learner import Learner
from fieldscope.retrieval.training.mining import TOP, Mined, counts, mine_all, read_mined, write_mined
from fieldscope.retrieval.training.queries import TrainingSet
from fieldscope.retrieval.training.ranking import rankings
from fieldscope.retrieval.training.trainer import Open, Plan, Progress, Stage, Trainer

RANDOM, MINED, TEXTS = "random", "mined", "texts"
_NUMBERS = {RANDOM: 1, MINED: 2, TEXTS: 3}


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
        sets = {"training": self.training.fingerprint, "texts": self.texts.fingerprint if self.texts else None}
        trainer = Trainer(self.open_model, self.start, self.validation, self.plan, self.out, self.progress, sets)
        yield trainer.begin()
        yield self._stage(trainer, RANDOM, self.start, [Source(self.training)])
        mined = self._mined(RANDOM, self.training)
        yield self._stage(trainer, MINED, self.start, [Source(self.training, mined)], counts(mined.values()))
        if self.texts is None:
            return
        again = {
            query: with_wrong_modality(found, mined[query])
            for query, found in self._mined(MINED, self.training).items()
        }
        sources = [Source(self.training, again), Source(self.texts, self._mined(MINED, self.texts))]
        found = [each for source in sources for each in (source.mined or {}).values()]
        yield self._stage(trainer, TEXTS, self.out / MINED, sources, counts(found))

    def _stage(
        self,
        trainer: Trainer,
        name: str,
        start: Path,
        sources: Sequence[Source],
        mined: Mapping[str, int] | None = None,
    ) -> Stage:
        plan = self.plan
        steps, rate = (plan.text_steps, plan.text_rate) if name == TEXTS else (plan.steps, plan.rate)
        loss_of = partial(contrastive_loss, sources=sources, plan=plan, seed=(plan.seed, _NUMBERS[name]))
        return trainer.stage(name, start, loss_of, steps, rate, mined)

    def _mined(self, stage: str, training: TrainingSet) -> dict[str, Mined]:
        """The negatives that a finished stage's model mines in a set."""
        return mined_by(self.open_model, self.out / stage, training, self.out, stage, self.progress)


def mined_by(
    open_model: Open, model: Path, training: TrainingSet, out: Path, stage: str, progress: Progress
) -> dict[str, Mined]:
    """The negatives that a model mines in a set, from their file below `out` once they are there."""
    path = out / f"negatives-{stage}-{training.name}.jsonl"
    if not path.is_file():
        learner = open_model(model)
        with progress(f"mining with {stage}") as report:
            mined = mine_all(training, rankings(learner, training, TOP, report))
        write_mined(path, mined.values())
    return read_mined(path)


def with_wrong_modality(mined: Mined, earlier: Mined) -> Mined:
    """Newly mined negatives, those of the wrong modality replaced by the earlier ones."""
    return mined.model_copy(update={"wrong_modality": earlier.wrong_modality})


def contrastive_loss(
    learner: Learner, step: int, *, sources: Sequence[Source], plan: Plan, seed: tuple[int, ...]
) -> torch.Tensor:
    """InfoNCE: each query has to find its positive among the documents of its batch."""
    batch = draw_batch(sources, plan.batch, seed, step)
    similarities = learner.vectors(batch.queries) @ learner.vectors(batch.documents).T
    scores = (similarities / plan.temperature).masked_fill(torch.from_numpy(batch.ignored), float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.tensor(batch.positives))

"""Distillation: a retriever learns to rank a run's candidates as the agent's P(match) does.

The agent says nothing about other kinds of documents than it was asked about, so a retriever that learns from it alone
forgets which kind a query wants. With `replay` each step trains on queries with known positives, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fieldscope.retrieval.training.batches import Source, next_queries
from fieldscope.retrieval.training.learner import Learner
from fieldscope.retrieval.training.queries import TrainingSet
from fieldscope.retrieval.training.stages import contrastive_loss, mined_by
from fieldscope.retrieval.training.trainer import START, Open, Plan, Progress, Stage, Trainer

DISTILLED = "distilled"

_LEAST = 1e-4  # P(match), and what it lacks to 1
_STAGE, _REPLAY = 4, 5


@dataclass(frozen=True)
class Judged:
    """Queries over the candidates of a run, and P(match) of those that have one, by query and document."""

    training: TrainingSet
    p_match: Mapping[str, Mapping[str, float]]


def distil(
    judged: Judged,
    open_model: Open,
    start: Path,
    validation: TrainingSet | None,
    plan: Plan,
    out: Path,
    progress: Progress,
    replay: TrainingSet | None = None,
) -> Iterator[Stage]:
    """Train the model in `start` on what the agent said, for `plan.steps` steps: the start's figures, then the stage.
    The queries of `replay`, with hard negatives that the start mines, are trained on in the same steps. Resumed as
    other stages are."""
    sets = {"training": judged.training.fingerprint} | ({"replay": replay.fingerprint} if replay else {})
    trainer = Trainer(open_model, start, validation, plan, out, progress, sets)
    yield trainer.begin()
    sources = [Source(replay, mined_by(open_model, start, replay, out, START, progress))] if replay else []
    loss_of = partial(_loss, judged=judged, sources=sources, plan=plan)
    yield trainer.stage(DISTILLED, start, loss_of, plan.steps, plan.rate)


def _loss(learner: Learner, step: int, *, judged: Judged, sources: Sequence[Source], plan: Plan) -> torch.Tensor:
    loss = distillation_loss(learner, step, judged=judged, plan=plan)
    if sources:
        loss = loss + contrastive_loss(learner, step, sources=sources, plan=plan, seed=(plan.seed, _REPLAY))
    return loss


def distillation_loss(learner: Learner, step: int, *, judged: Judged, plan: Plan) -> torch.Tensor:
    """The cross-entropy of a query's candidates: the agent's log-odds through a softmax, against the similarities."""
    queries = next_queries(judged.training, plan.batch, (plan.seed, _STAGE), step)
    asked = dict.fromkeys(document for query in queries for document in judged.p_match[query.id])
    place = {document: row for row, document in enumerate(asked)}
    documents = learner.vectors([judged.training.document(each) for each in asked])
    similarities = learner.vectors([judged.training.query(each) for each in queries]) @ documents.T / plan.temperature
    losses = []
    for row, query in enumerate(queries):
        p_match = judged.p_match[query.id]
        target = torch.tensor([log_odds(p) for p in p_match.values()]).softmax(0)
        said = similarities[row, [place[document] for document in p_match]].log_softmax(0)
        losses.append(-(target * said).sum())
    return torch.stack(losses).mean()


def log_odds(p: float) -> float:
    """Of a probability, which is kept away from 0 and 1."""
    kept = min(max(p, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))

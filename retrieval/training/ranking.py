"""What a learner finds: documents ranked for each query, and how well that does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.training.learner import Learner
from fieldscope.retrieval.training.queries import Reading, TrainingSet

_BATCH = 64


@dataclass(frozen=True)
class Figures:
    """Means over queries, each task counting alike, between 0 and 1: recall (whether any positive is at least at its
    query's depth), and modality accuracy (whether the best document is of the kind that is wanted)."""

    recall: float
    modality_accuracy: float
    recall_by_task: dict[str, float]


def encode(learner: Learner, readings: Sequence[Reading], report: Report) -> NDArray[np.float32]:
    """Vectors of inputs, shape (n, dim), without gradients."""
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(readings), _BATCH):
            report(start, len(readings))
            vectors.append(learner.vectors(readings[start : start + _BATCH]).float().numpy())
    report(len(readings), len(readings))
    return np.concatenate(vectors)


def rankings(learner: Learner, training: TrainingSet, top: int, report: Report) -> Iterator[list[str]]:
    """The `top` documents of the pool for each query under its first instruction, the best first. The pool's vectors
    are in memory."""
    pool = encode(learner, [training.document(each) for each in training.pool], report)
    queries = encode(learner, [training.query(each) for each in training.queries], report)
    for start in range(0, len(queries), _BATCH):
        for similarities in queries[start : start + _BATCH] @ pool.T:
            order = np.argsort(-similarities, kind="stable")[:top]
            yield [training.pool[row] for row in order]


def measure(learner: Learner, training: TrainingSet, report: Report) -> Figures:
    """How well the queries of a set are answered from its pool."""
    hits: dict[str, list[bool]] = {}
    right: dict[str, list[bool]] = {}
    depth = max(query.depth for query in training.queries)
    for query, found in zip(training.queries, rankings(learner, training, depth, report), strict=True):
        hits.setdefault(query.task, []).append(bool(set(found[: query.depth]).intersection(query.positives)))
        right.setdefault(query.task, []).append(training.modality(found[0]) == query.wanted)
    by_task = {task: float(np.mean(each)) for task, each in hits.items()}
    accuracy = float(np.mean([np.mean(each) for each in right.values()]))
    return Figures(float(np.mean(list(by_task.values()))), accuracy, by_task)

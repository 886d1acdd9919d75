"""From rankings to numbers: INQUIRE's metrics for every query of a run, and their means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agent.types import RerankResult
from eval import metrics
from eval.types import Benchmark, Means

Metric = Callable[[NDArray[np.uint8], NDArray[np.int64]], metrics.Values]

METRICS: Mapping[str, Metric] = {
    "AP@50": partial(metrics.average_precision, k=50),
    "AP@100": partial(metrics.average_precision, k=100),
    "nDCG@50": partial(metrics.ndcg, k=50),
    "nDCG@100": partial(metrics.ndcg, k=100),
    "RR": metrics.reciprocal_rank,
    "P@10": partial(metrics.precision, k=10),
    "recall@50": partial(metrics.recall, k=50),
    "recall@100": partial(metrics.recall, k=100),
}
"""What is computed for every query, from its final ranking."""

FIRST_STAGE_RECALL = "first-stage recall@100"
"""How much of what there was to find the first stage handed on: `recall@100` in the order of the prior."""

_MEAN_NAMES = {"AP@50": "mAP@50", "AP@100": "mAP@100", "RR": "MRR"}
HEADLINE = ("mAP@50", "mAP@100", "nDCG@50", "nDCG@100", "MRR")


@dataclass(frozen=True)
class Scores:
    """Metrics of the queries of one run: `values[metric]` and `positives` run along `query_ids`."""

    query_ids: tuple[str, ...]
    groups: tuple[str, ...]
    positives: NDArray[np.int64]
    values: Mapping[str, metrics.Values]

    def means(self) -> Means:
        """Each metric's mean over the queries that have a positive."""
        return self._means(np.ones(len(self.query_ids), dtype=np.bool_))

    def by_supercategory(self) -> dict[str, Means]:
        """The means within each supercategory, in alphabetical order; queries without one are left out."""
        groups = np.array(self.groups)
        return {group: self._means(groups == group) for group in sorted(set(self.groups) - {""})}

    def per_query(self) -> dict[str, dict[str, float | int | None]]:
        """Query id -> metric -> value, None where a query has no positive."""
        return {
            query_id: {
                "positives": int(self.positives[row]),
                **{name: metrics.mean(values[row : row + 1]) for name, values in self.values.items()},
            }
            for row, query_id in enumerate(self.query_ids)
        }

    def _means(self, rows: NDArray[np.bool_]) -> Means:
        return {_MEAN_NAMES.get(name, name): metrics.mean(values[rows]) for name, values in self.values.items()}


def score(benchmark: Benchmark, results: Mapping[str, RerankResult]) -> Scores:
    """Score rankings against the judgments. Raises ValueError for a ranking that is no strict order of images."""
    ids = tuple(results)
    judgments = [benchmark.judgments(query_id) for query_id in ids]
    positives = np.array([sum(judged.values()) for judged in judgments], dtype=np.int64)
    final, prior = [], []
    for result, judged in zip(results.values(), judgments, strict=True):
        _require_strict(result)
        final.append([judged.get(ranked.image_id, 0) for ranked in result.ranking])
        by_prior = sorted(result.ranking, key=lambda ranked: ranked.prior_rank)
        prior.append([judged.get(ranked.image_id, 0) for ranked in by_prior])
    values = {name: metric(_padded(final), positives) for name, metric in METRICS.items()}
    values[FIRST_STAGE_RECALL] = metrics.recall(_padded(prior), positives, k=100)
    groups = tuple(meta.supercategory if (meta := benchmark.meta.get(query_id)) else "" for query_id in ids)
    return Scores(ids, groups, positives, values)


def _require_strict(result: RerankResult) -> None:
    scores = [ranked.score for ranked in result.ranking]
    if any(below >= above for above, below in pairwise(scores)):
        raise ValueError(f"{result.strategy} ranks {result.query_id} with tied or rising scores")
    if len({ranked.image_id for ranked in result.ranking}) < len(scores):
        raise ValueError(f"{result.strategy} ranks an image of {result.query_id} twice")


def _padded(rows: list[list[int]]) -> NDArray[np.uint8]:
    """Rows of unequal length as one matrix, filled up with 0."""
    matrix = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.uint8)
    for row, values in enumerate(rows):
        matrix[row, : len(values)] = values
    return matrix

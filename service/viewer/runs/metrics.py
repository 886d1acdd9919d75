"""What rankings are measured in, and the statistics of means. Each is worked out once, since pages share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fieldscope.eval.measures.paired import bootstrap_intervals, randomisation_p

METRICS = {"AP@50": "mAP@50", "nDCG@50": "nDCG@50", "RR": "MRR"}
"""The name of a query's value, and that of its mean, as `metrics.json` has them. The first is the main one."""

MAIN = "AP@50"
"""The metric in which single queries are told."""

MAIN_MEAN = METRICS[MAIN]

Column = tuple[float, ...]
"""A value for each query."""


@dataclass(frozen=True)
class Mean:
    """A mean over queries, between `low` and `high` with a confidence of 95 %."""

    value: float
    low: float
    high: float


def means(columns: Sequence[Column]) -> list[Mean]:
    """The means of columns over the same queries, at least one, with their bootstrap intervals."""
    bounds = _bounds(tuple(columns))
    return [Mean(sum(column) / len(column), *bound) for column, bound in zip(columns, bounds, strict=True)]


@lru_cache(maxsize=2048)
def chance(gains: Column) -> float:
    """The p of the paired randomisation test: that such gains come about between runs that are alike."""
    return randomisation_p(gains)


@lru_cache(maxsize=256)
def _bounds(columns: tuple[Column, ...]) -> list[tuple[float, float]]:
    return bootstrap_intervals(columns) if columns else []

"""What runs gain over each other, query by query and in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from fieldscope.eval.measures.run_comparison import RunComparison, compare_values
from fieldscope.service.viewer.metrics import METRICS
from fieldscope.service.viewer.sides import Side

EVERY_TWO = 4
"""Of up to so many runs every two are tested; of more, each against the first."""


def effects(sides: Sequence[Side], queries: Sequence[str]) -> RunComparison[Side]:
    """The comparison over some queries that all runs could score, at least one."""
    every_two = len(sides) <= EVERY_TWO
    return compare_values(
        sides,
        lambda side, query, metric: side.run.digests[query].scores[metric],
        queries=queries,
        metrics=tuple(METRICS),
        couples=[(a, b) for a, b in combinations(range(len(sides)), 2) if a == 0 or every_two],
    )

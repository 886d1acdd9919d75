"""What runs gain over each other, query by query and in the mean, with the tests of `eval/measures/paired.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fieldscope.eval.measures.paired import EVEN, Paired, holm
from fieldscope.eval.measures.run_comparison import Effect
from fieldscope.service.viewer.metrics import MAIN, METRICS, Column, Mean, chance, means
from fieldscope.service.viewer.sides import Side

EVERY_TWO = 4
"""Of up to so many runs every two are tested; of more, each against the first."""


@dataclass(frozen=True)
class Pair:
    """B against A: effects by metric, and what B gains in each query's main metric, best first."""

    a: Side
    b: Side
    effects: Mapping[str, Effect]
    gains: dict[str, float]

    @property
    def won(self) -> list[str]:
        """The queries in which B is better, the largest gain first."""
        return [query for query, gain in self.gains.items() if gain > EVEN]

    @property
    def lost(self) -> list[str]:
        """The queries in which A is better, the largest loss first."""
        return [query for query, gain in reversed(self.gains.items()) if gain < -EVEN]

    @property
    def tied(self) -> list[str]:
        """The queries that make no difference."""
        return [query for query, gain in self.gains.items() if abs(gain) <= EVEN]


@dataclass(frozen=True)
class Effects:
    """`means` by letter of the run and metric; `pairs` with those against the first run before the others."""

    means: Mapping[str, Mapping[str, Mean]]
    pairs: tuple[Pair, ...]

    def against(self, first: Side) -> list[Pair]:
        """The pairs in which `first` is A."""
        return [pair for pair in self.pairs if pair.a is first]


def effects(sides: Sequence[Side], queries: Sequence[str]) -> Effects:
    """Every run's means over some queries that all could score, at least one, and what they gain over each other. P
    values are adjusted for all pairs that are tested in a metric."""
    couples = list(combinations(sides, 2)) if len(sides) <= EVERY_TWO else [(sides[0], other) for other in sides[1:]]
    values: dict[tuple[str, str], Column] = {
        (side.letter, metric): tuple(side.run.digests[query].scores[metric] for query in queries)
        for side in sides
        for metric in METRICS
    }
    gains: dict[tuple[str, str, str], Column] = {
        (a.letter, b.letter, metric): tuple(
            its - own for own, its in zip(values[a.letter, metric], values[b.letter, metric], strict=True)
        )
        for a, b in couples
        for metric in METRICS
    }
    keys: tuple[tuple[str, ...], ...] = (*values, *gains)
    of = dict(zip(keys, means([*values.values(), *gains.values()]), strict=True))
    tested: dict[tuple[str, str], dict[str, Effect]] = {(a.letter, b.letter): {} for a, b in couples}
    for metric in METRICS:
        family = [_paired(of[a, metric], of[b, metric], of[a, b, metric], gains[a, b, metric]) for a, b in tested]
        for couple, test, p in zip(tested, family, holm([test.p for test in family]), strict=True):
            tested[couple][metric] = Effect(test, p, detectable=None)
    return Effects(
        {side.letter: {metric: of[side.letter, metric] for metric in METRICS} for side in sides},
        tuple(
            Pair(a, b, tested[a.letter, b.letter], _sorted(queries, gains[a.letter, b.letter, MAIN]))
            for a, b in couples
        ),
    )


def _paired(a: Mean, b: Mean, gain: Mean, gains: Column) -> Paired:
    return Paired(
        queries=len(gains),
        mean_a=a.value,
        mean_b=b.value,
        difference=gain.value,
        low=gain.low,
        high=gain.high,
        p=chance(gains),
        wins=sum(each > EVEN for each in gains),
        ties=sum(abs(each) <= EVEN for each in gains),
        losses=sum(each < -EVEN for each in gains),
    )


def _sorted(queries: Sequence[str], gains: Sequence[float]) -> dict[str, float]:
    """Best first; equal ones in the order of their ids."""
    return dict(sorted(zip(queries, gains, strict=True), key=lambda item: (-item[1], item[0])))

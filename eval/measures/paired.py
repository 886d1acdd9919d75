"""Whether a difference between two runs is more than chance: paired tests over queries, pure and seeded.

The test is the paired randomisation test: were the two runs alike, each query's difference could as well have had the
other sign. Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
evaluation" (CIKM 2007), recommend it, with the bootstrap for intervals. Where several tests are made, Holm's step-down
procedure (Scandinavian Journal of Statistics 6, 1979) keeps the chance of a single false finding among them at its
level. What a test could have found is the power of the paired t test, which that of the randomisation test follows.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT = 16
"""Up to so many differing queries all assignments of signs (65,536) are counted; beyond, they are drawn."""

DRAWS = 99_999
SIGNIFICANT = 0.05
POWER = 0.8
"""The chance of finding a difference with which `detectable` reckons."""

MOST_QUERIES = 1_000_000
"""More than so many queries are beyond any test."""

EVEN = 1e-12
"""Differences up to this are rounding."""

_BLOCK = 4096
_TOGETHER = 8
"""So many queries' signs are looked up at once, by a random byte."""


Column = tuple[float, ...]
"""A value for each query."""


@dataclass(frozen=True)
class Mean:
    """A mean over queries, between `low` and `high` with a confidence of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Run B against run A over the same queries.

    `difference` is mean B minus mean A, between `low` and `high` with a confidence of 95 %; `p` is two-sided. `wins`
    counts the queries in which B is better, `losses` those in which A is.
    """

    queries: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, either way."""
        return self.p < SIGNIFICANT


def compare(a: Mapping[str, float], b: Mapping[str, float]) -> Paired:
    """Compare two runs, query id to metric. Raises ValueError unless both have the same queries, and at least one."""
    if not a or a.keys() != b.keys():
        raise ValueError("a paired test needs two runs over the same queries, and at least one")
    queries = sorted(a)
    (test,) = paired_tests([(tuple(a[query] for query in queries), tuple(b[query] for query in queries))])
    return test


def paired_tests(cases: Sequence[tuple[Column, Column]]) -> list[Paired]:
    """Compare columns A and B of several cases over the same queries, at least one. The bootstrap draws the queries
    once for all cases; each result is what it would be alone."""
    gains = [tuple(after - before for before, after in zip(*case, strict=True)) for case in cases]
    return [
        Paired(
            queries=len(gain),
            mean_a=float(np.mean(a)),
            mean_b=float(np.mean(b)),
            difference=float(np.mean(gain)),
            low=low,
            high=high,
            p=_p_of(gain),
            wins=sum(change > EVEN for change in gain),
            ties=sum(abs(change) <= EVEN for change in gain),
            losses=sum(change < -EVEN for change in gain),
        )
        for (a, b), gain, (low, high) in zip(cases, gains, _intervals(tuple(gains)), strict=True)
    ]


def means(columns: Sequence[Column]) -> list[Mean]:
    """The means of columns over the same queries, at least one, with their bootstrap intervals."""
    intervals = _intervals(tuple(columns))
    return [Mean(sum(column) / len(column), low, high) for column, (low, high) in zip(columns, intervals, strict=True)]


def randomisation_p(differences: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p of a mean difference of zero: how often random signs give a mean at least as far from zero.

    Exact where few queries differ. Else b of `draws` random assignments reach it and p is (b + 1) / (draws + 1), which
    is never zero. `differences` has shape (queries,).
    """
    values = _finite(differences)
    moving = values[np.abs(values) > EVEN]
    if not moving.size:
        return 1.0
    scale = float(np.abs(moving).sum())
    reached = abs(float(moving.sum())) - EVEN * scale
    if moving.size <= EXACT:
        return float((np.abs(_sums(moving)) >= reached).mean())
    tables = [_sums(moving[start : start + _TOGETHER]) for start in range(0, moving.size, _TOGETHER)]
    chance = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, draws, _BLOCK):
        drawn = chance.integers(0, 2**_TOGETHER, size=(len(tables), min(_BLOCK, draws - start)), dtype=np.uint8)
        # The last table may be shorter. Its length is a power of two, so the remainder is as random as the byte.
        sums = sum(table[signs & (table.size - 1)] for table, signs in zip(tables, drawn, strict=True))
        extreme += int((np.abs(sums) >= reached).sum())
    return (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values of one family of tests, along the given ones, so adjusted that whichever are under a level are
    findings of which, with that level's chance at most, any is false. Raises ValueError for what is no p value."""
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError("p values lie between 0 and 1")
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1)), 1)
    return tuple(adjusted.tolist())


def power(difference: float, spread: float, queries: int, level: float = SIGNIFICANT) -> float:
    """The chance that a two-sided paired test of `queries` queries finds a true mean `difference`, where single
    differences vary with a standard deviation of `spread` (above 0). 0 where so few queries can't reach the level.

    For differences of rank metrics that most queries share in, simulation agrees within 5 points from some 20 queries
    on. Where most differences are zero, or most of the gain comes from few queries, that takes 160.
    """
    if _too_few(queries, level):
        return 0.0
    return _power(difference / spread * math.sqrt(queries), queries, level)


def detectable(spread: float, queries: int, level: float = SIGNIFICANT) -> float | None:
    """The smallest true mean difference that a test of `queries` queries finds with a chance of `POWER`.

    `spread` is the standard deviation of the queries' differences. None where nothing can be said: the runs differ
    nowhere, or so few queries can't reach the level, whatever they show.
    """
    if spread <= EVEN or _too_few(queries, level):
        return None
    from scipy.optimize import brentq

    return float(brentq(lambda shift: _power(shift, queries, level) - POWER, 0, 50)) * spread / math.sqrt(queries)


def needed(difference: float, spread: float, level: float = SIGNIFICANT) -> int | None:
    """The smallest number of queries with which a test finds a true mean `difference` with a chance of `POWER`.

    `spread` is the standard deviation of the queries' differences. None where no number is enough: there is no
    difference, or it takes more than `MOST_QUERIES`.
    """
    if abs(difference) <= EVEN:
        return None
    least = next(queries for queries in range(2, 64) if not _too_few(queries, level))
    if spread <= EVEN:
        return least

    def found(queries: int) -> bool:
        return power(difference, spread, queries, level) >= POWER

    high = least
    while not found(high):
        high *= 2
        if high > MOST_QUERIES:
            return None
    low = max(least, high // 2)
    return low + bisect_left(range(low, high), True, key=found)


def bootstrap_interval(
    differences: ArrayLike, level: float = 0.95, draws: int = 9_999, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean difference over queries. `differences` has shape (queries,)."""
    (interval,) = bootstrap_intervals([differences], level, draws, seed)
    return interval


def bootstrap_intervals(
    columns: Sequence[ArrayLike], level: float = 0.95, draws: int = 9_999, seed: int = 0
) -> list[tuple[float, float]]:
    """`bootstrap_interval` of several columns over the same queries, each as it would be alone: the queries are drawn
    once for all, which is most of the work."""
    values = [_finite(column) for column in columns]
    if not values:
        return []
    queries = len(values[0])
    chance = np.random.default_rng(seed)
    means: list[list[NDArray[np.float64]]] = [[] for _ in values]
    for start in range(0, draws, _BLOCK):
        drawn = min(_BLOCK, draws - start)
        chosen = chance.integers(0, queries, size=(drawn, queries)) + queries * np.arange(drawn)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=drawn * queries).reshape(drawn, queries).astype(np.float64)
        for column, own in zip(values, means, strict=True):
            own.append(counts @ column / queries)
    bounds = [np.quantile(np.concatenate(own), [(1 - level) / 2, (1 + level) / 2]) for own in means]
    return [(float(low), float(high)) for low, high in bounds]


@lru_cache(maxsize=2048)
def _p_of(gains: Column) -> float:
    """Worked out once, since several pages and tables show the same test."""
    return randomisation_p(gains)


@lru_cache(maxsize=256)
def _intervals(columns: tuple[Column, ...]) -> list[tuple[float, float]]:
    return bootstrap_intervals(columns)


def _too_few(queries: int, level: float) -> bool:
    """Whether even the most extreme of all assignments of signs, and its mirror image, are too many to be rare."""
    return 2.0 ** (1 - queries) >= level


def _power(shift: float, queries: int, level: float) -> float:
    """The power of the paired t test, `shift` being the true mean in its standard errors."""
    from scipy import stats

    freedom = queries - 1
    bound = stats.t.isf(level / 2, freedom)
    return float(stats.nct.sf(bound, freedom, shift) + stats.nct.sf(bound, freedom, -shift))


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the values under every assignment of signs, of shape (2 ** values,)."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _finite(values: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError("differences must be a list of finite numbers, one for each query")
    return array

"""Whether a difference between two runs is more than chance: paired tests over queries, pure and seeded.

The test is the paired randomisation test: were the two runs alike, each query's difference could as well have had the
other sign. Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
evaluation" (CIKM 2007), recommend it, with the bootstrap for intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT = 16
"""Up to so many differing queries all assignments of signs (65,536) are counted; beyond, they are drawn."""

DRAWS = 99_999
SIGNIFICANT = 0.05

_BLOCK = 4096
_ROUNDING = 1e-12


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


def compare(a: Mapping[str, float], b: Mapping[str, float], seed: int = 0) -> Paired:
    """Compare two runs, query id to metric. Raises ValueError unless both have the same queries, and at least one."""
    if not a or a.keys() != b.keys():
        raise ValueError("a paired test wants two runs over the same queries, and at least one")
    values_a = np.array([a[query] for query in sorted(a)])
    values_b = np.array([b[query] for query in sorted(a)])
    differences = values_b - values_a
    even = np.abs(differences) <= _ROUNDING
    low, high = bootstrap_interval(differences, seed=seed)
    return Paired(
        queries=len(a),
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=randomisation_p(differences, seed=seed),
        wins=int((~even & (differences > 0)).sum()),
        ties=int(even.sum()),
        losses=int((~even & (differences < 0)).sum()),
    )


def randomisation_p(differences: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p of a mean difference of zero: how often random signs give a mean at least as far from zero.

    Exact where few queries differ. Else b of `draws` random assignments reach it and p is (b + 1) / (draws + 1), which
    is never zero. `differences` has shape (queries,).
    """
    values = _finite(differences)
    moving = values[np.abs(values) > _ROUNDING]
    if not moving.size:
        return 1.0
    scale = float(np.abs(moving).sum())
    reached = abs(float(moving.sum())) - _ROUNDING * scale
    if moving.size <= EXACT:
        numbers = np.arange(2**moving.size)[:, None] >> np.arange(moving.size)
        return float((np.abs(_signed(numbers, moving)) >= reached).mean())
    chance = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, draws, _BLOCK):
        rows = min(_BLOCK, draws - start)
        bits = chance.integers(0, 2, size=(rows, moving.size), dtype=np.int8)
        extreme += int((np.abs(_signed(bits, moving)) >= reached).sum())
    return (extreme + 1) / (draws + 1)


def bootstrap_interval(
    differences: ArrayLike, level: float = 0.95, draws: int = 9_999, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean difference over queries. `differences` has shape (queries,)."""
    values = _finite(differences)
    chance = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[chance.integers(0, values.size, size=(min(_BLOCK, draws - start), values.size))].mean(axis=1)
            for start in range(0, draws, _BLOCK)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _signed(bits: NDArray[np.integer], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the values under signs given as 0 (minus) and 1 (plus), one row each."""
    sums: NDArray[np.float64] = (2.0 * (bits & 1) - 1.0) @ values
    return sums


def _finite(values: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError("differences must be a list of finite numbers, one for each query")
    return array

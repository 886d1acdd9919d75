"""How often the paired test finds what is there, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fieldscope.eval.measures.paired import detectable, power, randomisation_p

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

PAIRS = 5_000
DRAWS = 1_999
"""With 1,999 draws a p under 0.05 is as frequent as with 99,999: (draws + 1) is a multiple of 1 / 0.05."""


def ap_like(chance: np.random.Generator, queries: int, change: float) -> NDArray[np.float64]:
    """Differences of two runs' average precisions: bounded, many of them zero, with the true mean `change`."""
    hard = chance.beta(2, 1, size=queries)
    a = np.clip(hard + chance.normal(0, 0.15, size=queries), 0, 1)
    b = np.clip(hard + chance.normal(0, 0.15, size=queries), 0, 1)
    same = chance.random(queries) < 0.3
    return np.where(same, 0.0, b - a) + change


def found(seed: int, queries: int, change: float, pairs: int) -> float:
    """The share of simulated pairs that the test finds different."""
    chance = np.random.default_rng(seed)
    p = [randomisation_p(ap_like(chance, queries, change), draws=DRAWS, seed=n) for n in range(pairs)]
    return float((np.array(p) < 0.05).mean())


@pytest.mark.parametrize("queries", [40, 160])
def test_one_null_pair_in_twenty_is_found(queries: int) -> None:
    assert 0.04 <= found(1, queries, 0.0, PAIRS) <= 0.06


@pytest.mark.parametrize("queries", [20, 40, 160])
@pytest.mark.parametrize("share", [0.5, 1.0, 1.3])
def test_the_power_that_is_told_is_the_power_that_is_simulated(queries: int, share: float) -> None:
    spread = float(ap_like(np.random.default_rng(2), 200_000, 0.0).std())
    smallest = detectable(spread, queries)
    assert smallest is not None
    told = power(share * smallest, spread, queries)
    assert found(3, queries, share * smallest, 2_000) == pytest.approx(told, abs=0.05)
    if share == 1:
        assert told == pytest.approx(0.8, abs=1e-6)

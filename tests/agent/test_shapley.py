"""Shapley values, held against their definition and their axioms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.shapley import MOST_EXACT, Floats, shapley

terms = st.floats(-20, 0)
pairs = st.lists(st.tuples(terms, terms), min_size=1, max_size=5)


def squared(sums: Floats) -> Floats:
    return np.asarray(sums[:, 0] ** 2 + np.exp(sums[:, 0]))


def by_definition(absent: Floats, present: Floats) -> list[float]:
    shares = np.zeros(len(absent))
    orders = list(permutations(range(len(absent))))
    for order in orders:
        terms = absent.copy()
        for player in order:
            before = squared(terms.sum(axis=0, keepdims=True))[0]
            terms[player] = present[player]
            shares[player] += squared(terms.sum(axis=0, keepdims=True))[0] - before
    return list(shares / len(orders))


@given(pairs)
def test_the_mean_over_all_orders(values: list[tuple[float, float]]) -> None:
    absent, present = np.array(values).T[..., None]
    assert shapley(absent, present, squared) == pytest.approx(by_definition(absent, present), rel=1e-9, abs=1e-9)


def test_nobody_plays() -> None:
    assert shapley(np.zeros((0, 1)), np.zeros((0, 1)), squared).tolist() == []
    assert shapley(np.full((3, 1), -2.0), np.full((3, 1), -2.0), squared).tolist() == [0.0, 0.0, 0.0]


def test_of_many_players_the_shares_are_near_and_sum_exactly() -> None:
    chance = np.random.default_rng(1)
    n = MOST_EXACT + 3
    absent, present = chance.uniform(-1, 0, (2, n, 1))
    shares = shapley(absent, present, squared)
    whole = squared(present.sum(axis=0, keepdims=True)) - squared(absent.sum(axis=0, keepdims=True))
    assert shares.sum() == pytest.approx(whole[0])
    # Of a square the Shapley value is known: the gain times the sum of both ends, each of which the others share.
    gains, middle = (present - absent)[:, 0], absent.sum() + present.sum()
    assert shares == pytest.approx(gains * middle, rel=0.05, abs=0.05)
    mixed = chance.permutation(n)
    assert shapley(absent[mixed], present[mixed], squared) == pytest.approx(shares[mixed])

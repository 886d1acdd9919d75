"""Paired tests over queries, against enumeration by hand and by SciPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fieldscope.eval.measures.paired import EXACT, bootstrap_interval, bootstrap_intervals, compare, randomisation_p

differences = st.lists(st.integers(-8, 8).map(lambda n: n / 8), min_size=1, max_size=8)


def by_id(values: list[float]) -> dict[str, float]:
    return {f"q{n}": value for n, value in enumerate(values)}


def test_three_queries_by_hand() -> None:
    # Sums under the eight assignments: +-0.6 twice each way out of (0.1, 0.2, 0.3) only when all signs agree.
    assert randomisation_p([0.1, 0.2, 0.3]) == 2 / 8
    # 0.3 - 0.1 - 0.2 is 0, and every assignment is at least as far from it.
    assert randomisation_p([0.3, -0.1, -0.2]) == 1
    # |sum| >= 0.4: +-(0.1+0.2+0.3) and +-(-0.1+0.2+0.3).
    assert randomisation_p([-0.1, 0.2, 0.3]) == 4 / 8


def test_queries_that_do_not_differ_change_nothing() -> None:
    assert randomisation_p([0.1, 0.2, 0.3, *[0.0] * 50]) == 2 / 8


@given(differences)
def test_it_counts_every_assignment_of_signs(values: list[float]) -> None:
    every = product((1, -1), repeat=len(values))
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True))) for signs in every]
    wanted = sum(total >= abs(sum(values)) for total in sums) / len(sums)  # eighths are exact in floats
    assert randomisation_p(values) == pytest.approx(wanted)


@given(differences)
def test_the_runs_may_change_places(values: list[float]) -> None:
    zeros = by_id([0.0] * len(values))
    there, back = compare(zeros, by_id(values)), compare(by_id(values), zeros)
    assert there.p == back.p
    assert there.difference == -back.difference
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wins + there.ties + there.losses == there.queries == len(values)


@pytest.mark.parametrize("queries", [5, 160])
def test_identical_runs(queries: int) -> None:
    run = by_id(list(np.random.default_rng(1).random(queries)))
    same = compare(run, run)
    assert (same.p, same.low, same.high, same.wins, same.ties) == (1, 0, 0, 0, queries)
    assert not same.significant


def test_drawing_agrees_with_counting() -> None:
    values = np.random.default_rng(7).normal(0.2, 0.5, size=EXACT)
    exact = randomisation_p(values)
    # A seventeenth query too small to matter, but enough to be drawn for.
    drawn = randomisation_p([*values, 1e-9])
    assert 0.02 < exact < 0.9
    assert drawn == pytest.approx(exact, abs=0.01)
    assert drawn == randomisation_p([*values, 1e-9])
    assert drawn != randomisation_p([*values, 1e-9], seed=1)


def test_drawing_agrees_with_scipy() -> None:
    values = np.random.default_rng(4).normal(0.02, 0.1, size=60)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    assert randomisation_p(values) == pytest.approx(theirs.pvalue, abs=0.015)


def test_a_drawn_p_is_never_zero() -> None:
    assert randomisation_p([0.5] * 40, draws=999) == 1 / 1000


def test_the_interval_holds_the_mean_and_narrows() -> None:
    chance = np.random.default_rng(5)
    few, many = chance.normal(0.1, 0.3, size=20), chance.normal(0.1, 0.3, size=2000)
    low, high = bootstrap_interval(few)
    assert low < few.mean() < high
    narrow_low, narrow_high = bootstrap_interval(many)
    assert narrow_high - narrow_low < (high - low) / 5
    # 1.96 standard errors, as for any mean of many
    assert narrow_high - narrow_low == pytest.approx(2 * 1.96 * many.std() / np.sqrt(many.size), rel=0.05)
    assert bootstrap_interval(few) == (low, high)


def test_a_comparison_by_hand() -> None:
    found = compare(by_id([0.2, 0.4, 0.6]), by_id([0.3, 0.4, 0.9]))
    assert (found.mean_a, found.mean_b) == pytest.approx((0.4, 1.6 / 3))
    assert found.difference == pytest.approx(0.4 / 3)
    assert (found.wins, found.ties, found.losses) == (2, 1, 0)
    assert found.p == 0.5
    assert 0 <= found.low <= found.difference <= found.high <= 0.3 + 1e-9


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0.1, 0.2])])
def test_other_queries_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="same queries"):
        compare(by_id(a), by_id(b))


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        randomisation_p([0.1, float("nan")])


def test_intervals_of_several_columns_are_those_of_each() -> None:
    chance = np.random.default_rng(1)
    columns = [chance.normal(0.1 * n, 0.2, size=40) for n in range(3)]
    together = bootstrap_intervals(columns)
    for column, found in zip(columns, together, strict=True):
        assert found == pytest.approx(bootstrap_interval(column))

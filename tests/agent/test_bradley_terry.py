import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.bradley_terry import Floats, MergedComparisons, Showing, merge_comparisons

N = 5
MEANS = st.lists(st.floats(-4, 4), min_size=N, max_size=N).map(np.array)
SPREADS = st.floats(0.1, 4)
WEIGHTS = st.floats(0, 5)
BIASES = st.floats(-2, 2)


@st.composite
def showings(draw: st.DrawFn) -> Showing:
    shown = draw(st.permutations(range(N)))[: draw(st.integers(1, 4))]
    odds = np.exp([draw(st.floats(-5, 5)) for _ in shown])
    return shown, tuple(odds / odds.sum())


SHOWINGS = st.lists(showings(), max_size=8)


def pair(first: int, second: int, log_odds: float) -> Showing:
    p = 1 / (1 + math.exp(-log_odds))
    return (first, second), (p, 1 - p)


def same(one: MergedComparisons, other: MergedComparisons) -> None:
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-7)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-7)


@given(MEANS, SPREADS, SHOWINGS, WEIGHTS, BIASES, st.randoms(use_true_random=False))
def test_it_does_not_matter_which_showing_came_first(
    mean: Floats, spread: float, shown: list[Showing], weight: float, bias: float, random: object
) -> None:
    shuffled = list(shown)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    same(
        merge_comparisons(mean, spread, shown, weight=weight, position_bias=bias),
        merge_comparisons(mean, spread, shuffled, weight=weight, position_bias=bias),
    )


@given(MEANS, SPREADS, st.floats(-5, 5), st.floats(-5, 5), WEIGHTS, BIASES, BIASES)
def test_both_orders_of_a_pair_cancel_what_favours_the_first(
    mean: Floats, spread: float, one: float, other: float, weight: float, bias: float, assumed: float
) -> None:
    even = merge_comparisons(mean, spread, [pair(0, 1, one), pair(1, 0, -other)], weight=weight)
    tilted = [pair(0, 1, one + bias), pair(1, 0, -other + bias)]
    same(even, merge_comparisons(mean, spread, tilted, weight=weight, position_bias=assumed))
    swapped = [pair(0, 1, other), pair(1, 0, -one)]
    same(even, merge_comparisons(mean, spread, swapped, weight=weight))


@given(MEANS, SPREADS, SHOWINGS, WEIGHTS, BIASES, st.permutations(range(N)))
def test_other_names_for_the_candidates_rename_the_result(
    mean: Floats, spread: float, shown: list[Showing], weight: float, bias: float, names: list[int]
) -> None:
    plain = merge_comparisons(mean, spread, shown, weight=weight, position_bias=bias)
    place = {name: at for at, name in enumerate(names)}
    renamed = [([place[i] for i in indices], probabilities) for indices, probabilities in shown]
    other = merge_comparisons(mean[names], spread, renamed, weight=weight, position_bias=bias)
    same(MergedComparisons(plain.mean[names], plain.covariance[np.ix_(names, names)]), other)


@given(MEANS, SPREADS, SHOWINGS, showings(), WEIGHTS)
def test_another_comparison_makes_nothing_less_certain(
    mean: Floats, spread: float, shown: list[Showing], more: Showing, weight: float
) -> None:
    before = merge_comparisons(mean, spread, shown, weight=weight)
    after = merge_comparisons(mean, spread, [*shown, more], weight=weight)
    assert (np.diag(after.covariance) <= np.diag(before.covariance) + 1e-9).all()
    assert (after.difference()[1] <= before.difference()[1] + 1e-6).all()


@given(MEANS, SPREADS, SHOWINGS, WEIGHTS, BIASES, st.floats(-10, 10))
def test_what_is_added_to_all_is_only_added(
    mean: Floats, spread: float, shown: list[Showing], weight: float, bias: float, constant: float
) -> None:
    plain = merge_comparisons(mean, spread, shown, weight=weight, position_bias=bias)
    shifted = merge_comparisons(mean + constant, spread, shown, weight=weight, position_bias=bias)
    same(MergedComparisons(plain.mean + constant, plain.covariance), shifted)
    assert plain.mean.sum() == pytest.approx(mean.sum(), abs=1e-6), "comparisons only say which, never how many"


@given(MEANS, SPREADS, SHOWINGS)
def test_without_weight_the_belief_stays(mean: Floats, spread: float, shown: list[Showing]) -> None:
    same(merge_comparisons(mean, spread, shown, weight=0.0), MergedComparisons(mean, spread**2 * np.eye(N)))


def test_a_pair_by_hand() -> None:
    # The difference 0 with variance 2 meets an observation of 3 with variance 2: 1.5 with variance 1.
    after = merge_comparisons(np.zeros(2), 1.0, [pair(0, 1, 3.0)])
    gap, deviation = after.difference()
    assert after.mean == pytest.approx([0.75, -0.75])
    assert gap[0, 1] == pytest.approx(1.5) and deviation[0, 1] == pytest.approx(1.0)
    # Half the weight is twice the noise; both orders half of it again.
    both = merge_comparisons(np.zeros(2), 1.0, [pair(0, 1, 3.0), pair(1, 0, -3.0)], weight=0.5)
    same(both, after)


def test_a_clear_winner_tells_more_than_a_narrow_one() -> None:
    gaps = [merge_comparisons(np.zeros(2), 1.0, [pair(0, 1, odds)]).difference()[0][0, 1] for odds in (0.5, 3.0, 8.0)]
    assert gaps == pytest.approx([0.25, 1.5, 4.0])


def test_a_set_settles_all_that_it_shows() -> None:
    odds = np.exp([1.0, 2.0, 3.0, -2.0])
    after = merge_comparisons(np.zeros(4), 100.0, [((3, 1, 0, 2), odds / odds.sum())])
    assert after.mean == pytest.approx(np.array([2.0, 1.0, -3.0, 0.0]), abs=0.01), "the mean of the four stays"


def test_what_favours_the_first_is_taken_off() -> None:
    same(
        merge_comparisons(np.zeros(2), 1.0, [pair(0, 1, 2.5)], position_bias=0.5),
        merge_comparisons(np.zeros(2), 1.0, [pair(0, 1, 2.0)]),
    )


def test_a_showing_of_one_tells_nothing_about_the_others() -> None:
    same(merge_comparisons(np.zeros(2), 1.0, [((0,), (0.9,))]), MergedComparisons(np.zeros(2), np.eye(2)))


def test_nobody_to_settle() -> None:
    assert merge_comparisons(np.zeros(0), 1.0, []).covariance.shape == (0, 0)

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.bradley_terry import Floats, MergedComparisons, Showing, merge_comparisons
from fieldscope.agent.scheduling import doubts, expected_gains, next_groups

HEAD = 20
Gains = Callable[[MergedComparisons, float], Floats]


def belief(mean: list[float], spread: float = 1.0) -> MergedComparisons:
    return merge_comparisons(np.array(mean), spread, [])


def symmetric(values: dict[tuple[int, int], float], n: int) -> Floats:
    gains = np.zeros((n, n))
    for (i, j), value in values.items():
        gains[i, j] = gains[j, i] = value
    return gains


def test_gains_are_symmetric_and_nothing_is_gained_from_oneself() -> None:
    gains = expected_gains(belief([2.0, 0.5, 0.0, -1.0]), 1.0)
    assert gains == pytest.approx(gains.T) and (np.diag(gains) == 0).all()
    assert (gains[~np.eye(4, dtype=bool)] > 0).all() and gains.max() < 1


def test_an_uncertain_order_gains_more_than_a_clear_one() -> None:
    gains = expected_gains(belief([0.1, 0.0, -6.0]), 1.0)
    assert gains[0, 1] > 10 * gains[0, 2]
    assert doubts(belief([0.1, 0.0, -6.0]))[0, 1] == pytest.approx(0.472, abs=0.001)


def test_what_a_comparison_told_is_not_worth_asking_again() -> None:
    before = belief([0.0, 0.0, 0.0, 0.0])
    after = merge_comparisons(before.mean, 1.0, [((0, 1), (0.5, 0.5)), ((1, 0), (0.5, 0.5))] * 10)
    assert expected_gains(after, 1.0)[0, 1] < expected_gains(after, 1.0)[2, 3]


def test_a_comparison_that_can_not_tell_gains_little() -> None:
    head = belief([0.5, 0.0, -0.5])
    assert (expected_gains(head, 0.01) < expected_gains(head, 1.0) + np.eye(3)).all()


def test_the_order_among_those_that_do_not_match_matters_little() -> None:
    assert expected_gains(belief([-8.0, -8.1, -8.2]), 1.0).max() < 0.01 < expected_gains(belief([0.0, -0.1]), 1.0).max()


def test_the_tail_gains_nothing() -> None:
    gains = expected_gains(belief([10.0 - 5 * rank for rank in range(14)], spread=0.1), 1.0)
    assert gains[11, 12] == 0


@given(st.integers(2, 9), st.integers(2, 4), st.integers(1, 5), st.floats(0, 1), st.data())
def test_groups_are_disjoint_new_and_worth_it(
    n: int, size: int, most: int, stop_below: float, data: st.DataObject
) -> None:
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    gains = symmetric({pair: data.draw(st.floats(0, 1)) for pair in pairs}, n)
    done = {frozenset(pair) for pair in data.draw(st.lists(st.sampled_from(pairs)))}
    groups = next_groups(gains, done, size=size, most=most, stop_below=stop_below)
    members = [index for group in groups for index in group]
    assert len(members) == len(set(members)) and len(groups) <= most
    for group in groups:
        assert 2 <= len(group) <= size and list(group) == sorted(group) and frozenset(group) not in done
        assert gains[np.ix_(group, group)].max() >= max(stop_below, 5e-324)
    best = [gains[np.ix_(group, group)].max() for group in groups]
    if size == 2:
        assert best == sorted(best, reverse=True)


def test_pairs_by_hand() -> None:
    gains = symmetric({(0, 1): 0.5, (0, 2): 0.4, (1, 2): 0.3, (2, 3): 0.2, (0, 3): 0.1}, 4)
    assert next_groups(gains, set()) == [(0, 1), (2, 3)]
    assert next_groups(gains, {frozenset((0, 1))}) == [(0, 2)], "1 and 3 are left, whose order gains nothing"
    assert next_groups(gains, set(), most=1) == [(0, 1)]
    assert next_groups(gains, set(), stop_below=0.25) == [(0, 1)]
    assert next_groups(gains, set(), stop_below=0.6) == []
    assert next_groups(gains, {frozenset((i, j)) for i in range(4) for j in range(4)}) == []


def test_a_set_grows_by_what_gains_most_beside_it() -> None:
    gains = symmetric({(0, 4): 0.5, (0, 2): 0.2, (2, 4): 0.2, (1, 4): 0.3, (1, 3): 0.1}, 5)
    assert next_groups(gains, set(), size=3) == [(0, 2, 4), (1, 3)]


def dcg_gain(scores: Floats, relevant: Floats) -> float:
    discounts = np.where(np.arange(HEAD) < 10, 1 / np.log2(np.arange(HEAD) + 2), 0)
    ideal = np.sort(relevant)[::-1] @ discounts
    return float(relevant[np.argsort(-scores, kind="stable")] @ discounts / ideal)


class Head:
    """Twenty images, three to six of them relevant, that a weak prior ranks and a model compares with noise: of each
    answer, and of each pair whichever way round it is shown."""

    def __init__(self, seed: int, noise: float, pair_noise: float) -> None:
        rng = np.random.default_rng(seed)
        self.relevant = np.zeros(HEAD)
        self.relevant[rng.permutation(HEAD)[: rng.integers(3, 7)]] = 1
        utility = np.where(self.relevant == 1, 2.0, -2.0) + rng.normal(0, 0.7, HEAD)
        self.prior = 0.3 * utility + rng.normal(0, 1, HEAD)
        odds = 1.2 * (utility[:, np.newaxis] - utility) + rng.normal(0, noise, (HEAD, HEAD)) + 0.5
        odds += np.subtract(*[m := rng.normal(0, pair_noise / np.sqrt(2), (HEAD, HEAD)), m.T])
        self.p_first = 1 / (1 + np.exp(-np.clip(odds, -12, 12)))

    def shown(self, i: int, j: int) -> list[Showing]:
        return [((a, b), (self.p_first[a, b], 1 - self.p_first[a, b])) for a, b in ((i, j), (j, i))]

    def ndcg(self, showings: list[Showing]) -> float:
        return dcg_gain(merge_comparisons(self.prior, 1.5, showings).mean, self.relevant)

    def scheduled(self, calls: int, gains: Gains) -> float:
        showings: list[Showing] = []
        done: set[frozenset[int]] = set()
        while (left := (calls - len(showings)) // 2) > 0:
            value = gains(merge_comparisons(self.prior, 1.5, showings), 1.0)
            for i, j in next_groups(value, done, most=min(8, left)):
                showings += self.shown(i, j)
                done.add(frozenset((i, j)))
        return self.ndcg(showings)


def recovered(gains: Gains, noise: float, pair_noise: float, calls: int = 57, heads: int = 100) -> float:
    """The share of what all pairs in both orders gain over the prior."""
    simulated = [Head(seed, noise, pair_noise) for seed in range(heads)]
    every = [(i, j) for i in range(HEAD) for j in range(i + 1, HEAD)]
    prior = sum(head.ndcg([]) for head in simulated)
    full = sum(head.ndcg([s for i, j in every for s in head.shown(i, j)]) for head in simulated)
    return (sum(head.scheduled(calls, gains) for head in simulated) - prior) / (full - prior)


def test_a_seventh_of_the_calls_recover_what_all_pairs_gain() -> None:
    assert recovered(expected_gains, noise=1.0, pair_noise=0.0) > 0.95


def test_where_comparisons_are_poor_most_of_their_gain_is_recovered_too() -> None:
    assert recovered(expected_gains, noise=2.0, pair_noise=2.0, heads=50) > 0.85


def test_few_calls_do_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    scheduled = recovered(expected_gains, noise=2.0, pair_noise=2.0, calls=30, heads=100)
    by_chance = recovered(lambda head, weight: rng.random((HEAD, HEAD)), noise=2.0, pair_noise=2.0, calls=30, heads=100)
    assert scheduled > by_chance + 0.05

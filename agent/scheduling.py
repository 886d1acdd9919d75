"""What to compare next: where an answer is expected to change the head of the ranking most."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from fieldscope.agent.bradley_terry import Floats, MergedComparisons, merge_comparisons
from fieldscope.agent.posterior import Belief, believe
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy

DEPTH = 10
"""The gain is expected in nDCG at this depth."""

WAVE = 8
"""How many groups are compared before the next wave is chosen from their answers."""

_DRAWS = 64  # rankings that stand for what the ranking might be


def compared_head(
    state: RerankState, resources: Resources, strategy: Strategy
) -> tuple[Belief, list[int], MergedComparisons | None]:
    """The belief after the verdicts; the head, as indices into its candidates, best first; and what the comparisons
    make of the head, in that order. Where candidates are not compared the head is empty and the last is None."""
    belief = believe(state, resources, strategy)
    compare = strategy.compare
    if compare is None or compare.mode == "walk":
        return belief, [], None
    head = belief.order()[: compare.top_k]
    place = {belief.candidates[index].image_id: at for at, index in enumerate(head)}
    showings = [
        ([place[image_id] for image_id in comparison.shown], comparison.probabilities)
        for comparison in state.comparisons
        if comparison.state == "answered" and place.keys() >= set(comparison.shown)
    ]
    fitted, means = belief.calibration, belief.log_odds[head]
    weight, bias = fitted.comparison_weight, fitted.position_bias
    return belief, head, merge_comparisons(means, fitted.spread, showings, weight=weight, position_bias=bias)


def expected_gains(head: MergedComparisons, weight: float) -> Floats:
    """(n, n) by how much nDCG@10 is expected to change once a pair is compared in both orders; symmetric, 0 on the
    diagonal.

    It is the product of what the exchange of the two would change, |discount_i - discount_j| over the rankings that the
    belief holds possible; the probability that the comparison exchanges them, which is high where their order is
    uncertain and the comparison can tell; and the probability that exactly one of them is a match, without which their
    order does not matter; over the ideal DCG that is expected. `weight` (above 0) is how much a comparison counts.

    Averaging over rankings, and not taking the present one, keeps in play what a first comparison threw down.
    """
    gap, spread = head.difference()
    moved = spread**2 / np.sqrt(spread**2 + 1.0 / weight)  # standard deviation by which the answer will move the gap
    exchanged = _normal_tail(np.abs(gap), moved)
    # MacKay (1992): the mean of a sigmoid over a normal distribution.
    match = 1.0 / (1.0 + np.exp(-head.mean / np.sqrt(1.0 + np.pi / 8.0 * np.diag(head.covariance))))
    one_matches = match[:, np.newaxis] * (1.0 - match) + match * (1.0 - match)[:, np.newaxis]
    ideal = max(1.0, float(np.sort(match)[::-1] @ _discounts(len(match))))
    return np.asarray(_stakes(head) * exchanged * one_matches / ideal)


def doubts(head: MergedComparisons) -> Floats:
    """(n, n) the probability that two candidates are in the wrong order, at most 0.5."""
    gap, spread = head.difference()
    return _normal_tail(np.abs(gap), spread)


def next_groups(
    gains: Floats, done: Collection[frozenset[int]], *, size: int = 2, most: int = WAVE, stop_below: float = 0.0
) -> list[tuple[int, ...]]:
    """At most `most` groups of `size` candidates to compare next, those with the greatest expected gain first.

    No two groups share a candidate, so that the next wave knows all that this one showed. A group grows from a
    pair by whatever adds the greatest gains with those already in it; where fewer candidates are left it stays smaller.
    Groups that are `done`, and pairs that gain nothing or less than `stop_below`, are left out. Indices rise within a
    group.
    """
    n = len(gains)
    first, second = np.triu_indices(n, 1)
    value = gains[first, second]
    free = set(range(n))
    groups: list[tuple[int, ...]] = []
    for at in np.argsort(-value, kind="stable"):
        if len(groups) == most or value[at] <= 0.0 or value[at] < stop_below:
            break
        pair = (int(first[at]), int(second[at]))
        if not free.issuperset(pair):
            continue
        group = _grown(list(pair), gains, free, size)
        if frozenset(group) not in done:
            groups.append(group)
            free.difference_update(group)
    return groups


def _grown(group: list[int], gains: Floats, free: Collection[int], size: int) -> tuple[int, ...]:
    while len(group) < size and (others := sorted(set(free) - set(group))):
        group.append(max(others, key=lambda other: float(gains[other, group].sum())))
    return tuple(sorted(group))


def _stakes(head: MergedComparisons) -> Floats:
    """(n, n) the expected |discount_i - discount_j|, over rankings drawn from the belief; the same ones every time."""
    n = len(head.mean)
    factor = np.linalg.cholesky(head.covariance + 1e-9 * np.eye(n))
    draws = head.mean + np.random.default_rng(0).standard_normal((_DRAWS, n)) @ factor.T
    ranks = (-draws).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    discounts = _discounts(n)[ranks]
    return np.asarray(np.abs(discounts[:, :, np.newaxis] - discounts[:, np.newaxis, :]).mean(axis=0))


def _discounts(n: int) -> Floats:
    """(n,) what a match counts at each rank in DCG@10."""
    ranks = np.arange(1, n + 1)
    return np.asarray(np.where(ranks <= DEPTH, 1.0 / np.log2(ranks + 1), 0.0))


def _normal_tail(distance: Floats, spread: Floats) -> Floats:
    """P(a normal variable exceeds its mean by `distance`), elementwise; 0 where it has no spread."""
    scaled = np.divide(distance, spread, out=np.full_like(distance, np.inf), where=spread > 0.0)
    return np.asarray(np.vectorize(math.erfc, otypes=[np.float64])(scaled / math.sqrt(2.0)) / 2.0)

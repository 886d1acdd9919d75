from __future__ import annotations

import math
import random
from collections.abc import Callable

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from fieldscope.eval.measures import metrics
from fieldscope.eval.measures.scoring import METRICS

Metric = Callable[..., metrics.Values]

# relevance, positives, k, AP@k, nDCG@k, P@k, recall@k: worked out by hand.
LOG3, LOG4 = math.log2(3), 2.0
TABLE = [
    ([1, 0, 1, 0], 2, 4, (1 + 2 / 3) / 2, (1 + 1 / LOG4) / (1 + 1 / LOG3), 2 / 4, 1.0),
    ([0, 1, 0, 0], 1, 4, 1 / 2, 1 / LOG3, 1 / 4, 1.0),
    ([1, 1, 0, 0], 2, 4, 1.0, 1.0, 2 / 4, 1.0),
    ([0, 0, 0, 0], 3, 4, 0.0, 0.0, 0.0, 0.0),
    # One positive was never retrieved: it counts in the ideal and in the normalisation.
    ([1, 0, 0, 0], 2, 4, 1 / 2, 1 / (1 + 1 / LOG3), 1 / 4, 1 / 2),
    # More positives than k: the best possible top k is all there is to reach.
    ([1, 1, 1, 0], 5, 2, 1.0, 1.0, 1.0, 2 / 5),
    ([0, 1, 1, 1], 3, 2, (1 / 2) / 2, (1 / LOG3) / (1 + 1 / LOG3), 1 / 2, 1 / 3),
    # A ranking that is shorter than k.
    ([0, 1], 1, 100, 1 / 2, 1 / LOG3, 1 / 100, 1.0),
    ([], 2, 3, 0.0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("relevance", "positives", "k", "ap", "ndcg", "precision", "recall"), TABLE)
def test_hand_computed(
    relevance: list[int], positives: int, k: int, ap: float, ndcg: float, precision: float, recall: float
) -> None:
    assert metrics.average_precision(relevance, positives, k) == pytest.approx(ap, abs=1e-15)
    assert metrics.ndcg(relevance, positives, k) == pytest.approx(ndcg, abs=1e-15)
    assert metrics.precision(relevance, positives, k) == pytest.approx(precision, abs=1e-15)
    assert metrics.recall(relevance, positives, k) == pytest.approx(recall, abs=1e-15)


@pytest.mark.parametrize(("relevance", "expected"), [([1, 1], 1.0), ([0, 0, 0, 1], 0.25), ([0, 0], 0.0), ([], 0.0)])
def test_reciprocal_rank_by_hand(relevance: list[int], expected: float) -> None:
    assert metrics.reciprocal_rank(relevance, 2) == expected


def cases(seed: int, count: int) -> list[tuple[list[int], int, int]]:
    """Random (relevance, positives, k) of every shape: all, none, one relevant; fewer and more than k; some missed."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        depth = chance.randint(1, 120)
        relevant = chance.choice([0, 1, depth, chance.randint(0, depth)])
        relevance = [1] * relevant + [0] * (depth - relevant)
        chance.shuffle(relevance)
        positives = relevant + chance.choice([0, chance.randint(0, 80)])
        found.append((relevance, max(positives, 1), chance.choice([1, 5, 10, 50, 100, 150])))
    return found


def test_equals_the_benchmarks_definition_through_scikit_learn() -> None:
    """AP over the top k from scikit-learn, renormalised; nDCG with the missed positives padded at the end."""
    for relevance, positives, k in cases(1, 500):
        scores = -np.arange(len(relevance), dtype=float)
        top = np.array(relevance[:k])
        hits = int(top.sum())
        ap = average_precision_score(top, scores[:k]) * hits / min(positives, k) if hits else 0.0
        assert metrics.average_precision(relevance, positives, k) == pytest.approx(ap, abs=1e-12)

        # Fillers behind the list hold the padded positives beyond rank k, where the ranking did not put them.
        missed = positives - sum(relevance)
        padded = [*relevance, *[0] * max(0, k - len(relevance)), 0, *[1] * missed]
        padded_scores = -np.arange(len(padded), dtype=float)
        assert metrics.ndcg(relevance, positives, k) == pytest.approx(
            ndcg_score([padded], [padded_scores], k=k), abs=1e-12
        )


def test_equals_ir_measures_where_the_definitions_meet() -> None:
    """trec_eval's AP is over all positives, so it meets ours where they are no more than k."""
    for number, (relevance, positives, k) in enumerate(cases(2, 150)):
        query = str(number)
        qrels = [ir_measures.Qrel(query, f"d{rank}", value) for rank, value in enumerate(relevance)]
        qrels += [ir_measures.Qrel(query, f"missed{rank}", 1) for rank in range(positives - sum(relevance))]
        run = [ir_measures.ScoredDoc(query, f"d{rank}", -float(rank)) for rank in range(len(relevance))]
        ours = {
            ir_measures.nDCG @ k: metrics.ndcg(relevance, positives, k),
            ir_measures.P @ k: metrics.precision(relevance, positives, k),
            ir_measures.R @ k: metrics.recall(relevance, positives, k),
            ir_measures.RR: metrics.reciprocal_rank(relevance, positives),
        }
        if positives <= k:
            ours[ir_measures.AP @ k] = metrics.average_precision(relevance, positives, k)
        theirs = ir_measures.calc_aggregate(list(ours), qrels, run)
        assert {str(m): float(v) for m, v in ours.items()} == pytest.approx({str(m): v for m, v in theirs.items()})


ALL_AT_K: list[Metric] = [metrics.average_precision, metrics.ndcg, metrics.precision, metrics.recall]
rankings = st.lists(st.lists(st.integers(0, 1), min_size=7, max_size=7), min_size=1, max_size=6)


@settings(deadline=None)
@given(rankings, st.integers(1, 9), st.integers(0, 5))
def test_many_queries_at_once_equal_one_by_one(matrix: list[list[int]], k: int, missed: int) -> None:
    positives = [sum(row) + missed for row in matrix]
    for metric in ALL_AT_K:
        together = metric(matrix, positives, k)
        alone = [metric(row, count, k) for row, count in zip(matrix, positives, strict=True)]
        np.testing.assert_array_equal(together, alone)
        scored = together[~np.isnan(together)]
        assert ((scored >= 0) & (scored <= 1)).all()


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 40))
def test_a_perfect_ranking_is_one_and_padding_changes_nothing(positives: int, others: int, k: int) -> None:
    perfect = [1] * positives + [0] * others
    assert metrics.average_precision(perfect, positives, k) == 1.0
    assert metrics.ndcg(perfect, positives, k) == 1.0
    for metric in ALL_AT_K:
        assert metric([*perfect, 0, 0, 0], positives, k) == metric(perfect, positives, k)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=2, max_size=20), st.data())
def test_moving_a_hit_up_never_hurts(relevance: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(relevance) - 1))
    if relevance[rank] <= relevance[rank - 1]:
        return
    better = relevance.copy()
    better[rank - 1], better[rank] = 1, 0
    for metric in ALL_AT_K:
        assert metric(better, sum(relevance), 10) >= metric(relevance, sum(relevance), 10) - 1e-12


def test_a_query_without_positives_is_left_out_of_the_mean() -> None:
    relevance, positives = [[0, 0], [0, 1]], [0, 1]
    for metric in ALL_AT_K:
        values = metric(relevance, positives, 2)
        assert np.isnan(values[0])
        assert metrics.mean(values) == values[1]
    ranks = metrics.reciprocal_rank(relevance, positives)
    assert np.isnan(ranks[0])
    assert metrics.mean(ranks) == 0.5
    assert metrics.mean(np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("relevance", "positives", "k"), [([1, 0], 1, 0), ([2, 0], 2, 1), ([0.5], 1, 1), ([1, 1], 1, 2), (1, 1, 1)]
)
def test_nonsense_is_refused(relevance: list[int], positives: int, k: int) -> None:
    for metric in ALL_AT_K:
        with pytest.raises(ValueError, match=r"k must|relevance must|more relevant"):
            metric(relevance, positives, k)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=120), st.integers(0, 80), st.sampled_from([10, 50, 100]))
def test_every_metric_equals_sums_written_out(relevance: list[int], missed: int, k: int) -> None:
    positives = sum(relevance) + missed
    if not positives:
        return
    ranks = [rank for rank, hit in enumerate(relevance[:k], start=1) if hit]
    first = next((1 / rank for rank, hit in enumerate(relevance, start=1) if hit), 0.0)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(positives, k) + 1))
    expected = {
        f"AP@{k}": sum(n / rank for n, rank in enumerate(ranks, start=1)) / min(positives, k),
        f"nDCG@{k}": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        f"P@{k}": len(ranks) / k,
        "RR": first,
        "RR@50": first if first >= 1 / 50 else 0.0,
    }
    found = {name: float(METRICS[name](np.array([relevance]), np.array([positives]))[0]) for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)

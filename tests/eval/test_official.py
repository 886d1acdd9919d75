"""INQUIRE's own metrics on scores with ties, against scikit-learn as its scripts call it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from fieldscope.eval.measures import metrics, official

LEVELS = (0.0, 0.0, 0.25, 0.5, 1.0, 1.0)  # exact zeros and ones, and many ties


def by_scikit_learn(truth: Sequence[int], scores: Sequence[float], positives: int) -> tuple[float, float, float]:
    """AP, nDCG and the reciprocal rank over these images, as the benchmark defines them."""
    relevant, values = np.array(truth), np.array(scores)
    k, hits = len(relevant), int(relevant.sum())
    ap = average_precision_score(relevant, values) * hits / min(positives, k) if hits else 0.0
    missed = positives - hits
    padded = [[*truth, *[1] * missed, 0]], [[*scores, *[-100.0] * missed, -200.0]]
    order = np.flip(np.argsort(values))
    places = [place for place, index in enumerate(order, start=1) if relevant[index]]
    return ap, ndcg_score(*padded, k=k), 1 / places[0] if places else 0.0


lists = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(LEVELS)), min_size=1, max_size=120)


@settings(deadline=None, max_examples=300)
@given(lists, st.integers(0, 60))
def test_ties_count_as_scikit_learn_counts_them(images: list[tuple[int, float]], missed: int) -> None:
    truth, scores = zip(*images, strict=True)
    positives = sum(truth) + missed
    if positives:
        ap, ndcg, first = by_scikit_learn(truth, scores, positives)
        assert official.average_precision(truth, scores, positives) == pytest.approx(ap, abs=1e-12)
        assert official.ndcg(truth, scores, positives) == pytest.approx(ndcg, abs=1e-12)
        ranked = [truth[place] for place in official.ranked(scores)]
        assert metrics.reciprocal_rank(ranked, positives) == pytest.approx(first, abs=1e-12)


@settings(deadline=None)
@given(lists, st.integers(1, 60))
def test_two_stages_are_the_best_k_measured_alone(images: list[tuple[int, float]], k: int) -> None:
    """The scripts for full retrieval sort, keep k, and hand those to the same metrics, which sort them again."""
    truth, scores = zip(*images, strict=True)
    best = np.flip(np.argsort(np.array(scores)))[:k]
    kept, values = np.array(truth)[best], np.array(scores)[best]
    again = kept[np.flip(np.argsort(values))]
    places = official.sorted_again(official.ranked(scores), scores, k)
    assert sorted(places) == list(range(len(images)))
    assert [truth[place] for place in places[:k]] == again.tolist()
    assert sorted(scores[place] for place in places[:k]) == sorted(values.tolist())


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=100), st.integers(0, 9))
def test_without_ties_they_are_the_metrics_of_a_strict_order(truth: list[int], missed: int) -> None:
    scores, positives, k = list(range(len(truth), 0, -1)), sum(truth) + missed, len(truth)
    assert official.ranked(scores) == list(range(len(truth)))
    if positives:
        assert official.average_precision(truth, scores, positives) == pytest.approx(
            float(metrics.average_precision(truth, positives, k)), abs=1e-12
        )
        assert official.ndcg(truth, scores, positives) == pytest.approx(
            float(metrics.ndcg(truth, positives, k)), abs=1e-12
        )


def test_a_tie_by_hand() -> None:
    """Two images at 1.0, one of them relevant, then a relevant one: precisions 1/2 and 2/3, each for half of the
    recall."""
    assert official.average_precision([1, 0, 1], [1.0, 1.0, 0.0], 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    discount = 1 / math.log2(3)
    expected = ((1 + discount) / 2 + 1 / 2) / (1 + discount)
    assert official.ndcg([1, 0, 1], [1.0, 1.0, 0.0], 2) == pytest.approx(expected)


def test_without_anything_to_find_there_is_no_figure() -> None:
    assert math.isnan(official.average_precision([0, 0], [1.0, 0.5], 0))
    assert math.isnan(official.ndcg([0, 0], [1.0, 0.5], 0))

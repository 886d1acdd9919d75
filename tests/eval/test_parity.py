"""The metrics against INQUIRE's published definitions, written here once more and by other means.

`y_true` is the relevance of the images that were retrieved, best first, and `count_pos` how many relevant images there
are: those among the list of 100 in INQUIRE-Rerank, all of the collection's in INQUIRE-Fullrank. In exact rational
arithmetic where the definition allows it. Ties are excepted: scikit-learn averages over them, and a ranking here is
strict.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction

import ir_measures
import numpy as np
import pytest

from fieldscope.eval.measures import metrics
from fieldscope.eval.measures.scoring import METRICS

KS = (1, 5, 10, 50, 100)
Case = tuple[list[int], int]


def definition_ap(y_true: list[int], count_pos: int, k: int) -> Fraction:
    """The mean precision at the hits of the top k, times the hits, over min(positives, k)."""
    top = y_true[:k]
    hits = [rank for rank, relevant in enumerate(top, start=1) if relevant]
    if not hits:
        return Fraction(0)
    mean = sum((Fraction(sum(top[:rank]), rank) for rank in hits), Fraction(0)) / len(hits)
    return mean * len(hits) / min(count_pos, k)


def definition_ndcg(y_true: list[int], count_pos: int, k: int) -> float:
    """DCG@k over the DCG@k of the best order of a list to which the missed positives are appended as the last ranks."""
    missed = count_pos - sum(y_true)
    padded = y_true + [0] * max(0, k - len(y_true)) + [1] * missed

    def dcg(gains: list[int]) -> float:
        return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], start=1))

    return dcg(padded) / dcg(sorted(padded, reverse=True))


def definition_rr(y_true: list[int]) -> Fraction:
    return next((Fraction(1, rank) for rank, relevant in enumerate(y_true, start=1) if relevant), Fraction(0))


def cases(count: int = 1000) -> list[Case]:
    """Random rankings of every shape: all, none and one relevant, few, half, many; shorter and longer than k; with and
    without positives that were missed."""
    chance = random.Random(2411_02537)
    found: list[Case] = []
    for number in range(count):
        depth = chance.choice([1, 2, 7, 49, 50, 51, 100, 100, 100, 137])
        hits = (0, 1, depth, chance.randint(0, depth), min(3, depth), depth // 2)[number % 6]
        ranks = [1] * hits + [0] * (depth - hits)
        chance.shuffle(ranks)
        missed = chance.choice([0, 0, 1, chance.randint(1, 40), 1500])
        found.append((ranks, max(1, hits + missed)))
    return found


def test_the_cases_have_every_shape() -> None:
    drawn = cases()
    assert len(drawn) == 1000
    shapes = {
        "all": lambda ranks, _: sum(ranks) == len(ranks),
        "none": lambda ranks, _: not any(ranks),
        "one": lambda ranks, _: sum(ranks) == 1,
        "fewer than k": lambda ranks, _: len(ranks) < 50,
        "more than k": lambda ranks, positives: positives > 50 and len(ranks) > 50,
        "missed": lambda ranks, positives: positives > sum(ranks),
        "nothing missed": lambda ranks, positives: positives == sum(ranks),
    }
    for name, has in shapes.items():
        assert sum(has(*case) for case in drawn) > 50, name


@pytest.mark.parametrize("k", KS)
def test_ap_and_ndcg_equal_the_published_definitions(k: int) -> None:
    for ranks, positives in cases():
        ap = float(metrics.average_precision(ranks, positives, k))
        assert abs(ap - definition_ap(ranks, positives, k)) < 1e-12
        assert abs(float(metrics.ndcg(ranks, positives, k)) - definition_ndcg(ranks, positives, k)) < 1e-12


def test_the_rerank_script_takes_the_whole_list() -> None:
    """Its k is the length of the list, 100, and its positives are those of the list."""
    for ranks, _ in cases():
        if any(ranks):
            listed, k = sum(ranks), len(ranks)
            ap, ndcg = definition_ap(ranks, listed, k), definition_ndcg(ranks, listed, k)
            if k <= 100:  # what an evaluation reports as AP@100
                told = METRICS["AP@100"](np.array([ranks], dtype=np.uint8), np.array([listed]))
                assert abs(float(told[0]) - definition_ap(ranks, listed, 100)) < 1e-12
            assert abs(float(metrics.average_precision(ranks, listed, k)) - ap) < 1e-12
            assert abs(float(metrics.ndcg(ranks, listed, k)) - ndcg) < 1e-12


def test_mrr_equals_its_definition() -> None:
    for ranks, positives in cases():
        assert abs(float(metrics.reciprocal_rank(ranks, positives)) - definition_rr(ranks)) < 1e-12


def test_all_at_once_equals_one_by_one() -> None:
    drawn = cases()
    depth = max(len(ranks) for ranks, _ in drawn)
    matrix = np.array([ranks + [0] * (depth - len(ranks)) for ranks, _ in drawn])
    positives = np.array([count for _, count in drawn])
    for k in KS:
        wanted = [float(definition_ap(ranks, count, k)) for ranks, count in drawn]
        np.testing.assert_allclose(metrics.average_precision(matrix, positives, k), wanted, rtol=0, atol=1e-12)
        padded = [definition_ndcg(ranks, count, k) for ranks, count in drawn]
        np.testing.assert_allclose(metrics.ndcg(matrix, positives, k), padded, rtol=0, atol=1e-12)


def test_equals_ir_measures_for_those_that_they_share() -> None:
    """nDCG, P, recall and RR always; AP where there are no more positives than k, since trec_eval's is over all."""
    drawn = cases()
    qrels, run = [], []
    for number, (ranks, positives) in enumerate(drawn):
        query = f"{number:04}"
        qrels += [ir_measures.Qrel(query, f"d{rank}", value) for rank, value in enumerate(ranks)]
        qrels += [ir_measures.Qrel(query, f"m{rank}", 1) for rank in range(positives - sum(ranks))]
        run += [ir_measures.ScoredDoc(query, f"d{rank}", -float(rank)) for rank in range(len(ranks))]
    for k in (10, 50, 100):
        ours = {
            ir_measures.nDCG @ k: [float(metrics.ndcg(ranks, count, k)) for ranks, count in drawn],
            ir_measures.P @ k: [float(metrics.precision(ranks, count, k)) for ranks, count in drawn],
            ir_measures.R @ k: [float(metrics.recall(ranks, count, k)) for ranks, count in drawn],
            ir_measures.RR: [float(metrics.reciprocal_rank(ranks, count)) for ranks, count in drawn],
            ir_measures.AP @ k: [float(metrics.average_precision(ranks, count, k)) for ranks, count in drawn],
        }
        seen = 0
        for measured in ir_measures.iter_calc(list(ours), qrels, run):
            number = int(measured.query_id)
            if measured.measure != ir_measures.AP @ k or drawn[number][1] <= k:
                assert abs(ours[measured.measure][number] - measured.value) < 1e-12
                seen += 1
        assert seen > 4 * len(drawn)

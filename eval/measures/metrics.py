"""INQUIRE's metrics (Vendrow et al. 2024, arXiv 2411.02537) and those of composed and dialogue tasks, vectorised.

Every function takes `relevance` of shape (..., depth): 1 where the image at that rank is relevant, else 0, best rank
first, shorter rankings padded with 0 at the end; and `positives` of shape (...): how many relevant images there were
to find. For a rerank benchmark those are the relevant candidates, for full retrieval all of the collection's. The
order must be strict, because a metric of tied ranks depends on who breaks the tie.

The result has shape (...), float64, from 0 to 1. Where `positives` is 0 it is NaN: such a query says nothing about a
ranking (INQUIRE has none, and its own AP divides 0 by 0 there), and `mean` leaves it out. Raises ValueError for a `k`
below 1, for relevance that is not binary, and for rankings that hold more positives than there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def average_precision(relevance: ArrayLike, positives: ArrayLike, k: int) -> Values:
    """AP@k: the precisions at the ranks of the hits in the top k, summed, over min(positives, k).

    It equals scikit-learn's `average_precision_score` on the top k, times the hits there, over min(positives, k). Its
    mean is the mAP@k of CIRCO (arXiv 2303.15247), too.
    """
    hits, total = _top(relevance, positives, k)
    precision = np.cumsum(hits, axis=-1) / np.arange(1, hits.shape[-1] + 1)
    return _ratio(_sum(precision * hits), np.minimum(total, k))


def ndcg(relevance: ArrayLike, positives: ArrayLike, k: int) -> Values:
    """nDCG@k with gain 1 and discount log2(rank + 1), over the best top k that `positives` allow.

    The ideal counts the positives that the ranking missed, as INQUIRE's padding with them does.
    """
    hits, total = _top(relevance, positives, k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(total, k)]
    return _ratio(_sum(hits * discount[: hits.shape[-1]]), ideal)


def graded_ndcg(gains: ArrayLike, ideal: ArrayLike, k: int) -> Values:
    """nDCG@k where one relevant image is worth more than another: gain is the judgment itself, as in trec_eval.

    `gains` has shape (..., depth), those of a ranking's images, best rank first; `ideal` shape (..., n), those of all
    judged images, the greatest first. Both are 0 or greater, and padded with 0.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")

    def dcg(of: ArrayLike) -> Values:
        top = np.asarray(of, dtype=np.float64)[..., :k]
        return _sum(top / np.log2(np.arange(2, top.shape[-1] + 2)))

    best = dcg(ideal)
    return np.where(best > 0, dcg(gains) / np.where(best > 0, best, 1.0), np.nan)


def reciprocal_rank(relevance: ArrayLike, positives: ArrayLike, k: int | None = None) -> Values:
    """1 over the rank of the first hit, 0 without one in the top k, or without `k` in the whole ranking."""
    hits, total = _top(relevance, positives, k)
    first = hits.argmax(axis=-1) if hits.shape[-1] else np.zeros(total.shape)
    return np.where(total > 0, hits.any(axis=-1) / (first + 1.0), np.nan)


def precision(relevance: ArrayLike, positives: ArrayLike, k: int) -> Values:
    """Hits in the top k, over k."""
    hits, total = _top(relevance, positives, k)
    return np.where(total > 0, hits.sum(axis=-1) / k, np.nan)


def recall(relevance: ArrayLike, positives: ArrayLike, k: int) -> Values:
    """Hits in the top k, over positives. With one positive it is the Recall@K of CIRR (arXiv 2108.04024), and that of
    a dialogue's round in PlugIR (arXiv 2406.03411)."""
    hits, total = _top(relevance, positives, k)
    return _ratio(hits.sum(axis=-1).astype(np.float64), total)


def hits(relevance: ArrayLike, positives: ArrayLike, k: int) -> Values:
    """1 with a hit in the top k, else 0. The Hits@K of a dialogue is `carried` over its rounds."""
    found, total = _top(relevance, positives, k)
    return np.where(total > 0, found.any(axis=-1), np.nan)


def carried(hits: ArrayLike) -> Values:
    """Hits@K of dialogues (ChatIR, arXiv 2305.20062): 1 from the first round with a hit on, so that a miss, a hit and a
    miss are 0, 1, 1. `hits` has shape (..., rounds); NaN stays NaN, and a hit before it counts after it."""
    rounds = np.asarray(hits, dtype=np.float64)
    return np.where(np.isnan(rounds), np.nan, np.maximum.accumulate(np.nan_to_num(rounds), axis=-1))


def best_rank_integral(ranks: ArrayLike) -> float:
    """BRI of one dialogue (PlugIR, arXiv 2406.03411), 0 or greater; lower is better.

    `ranks` has shape (rounds + 1,): the target's rank, from 1, after each round, the caption alone first. It is the
    area under the logarithm of the best rank so far, over the number of rounds; NaN without a round, and where a rank
    is unknown (NaN).
    """
    best = np.log(np.minimum.accumulate(np.asarray(ranks, dtype=np.float64)))
    rounds = len(best) - 1
    return float(((best[:-1] + best[1:]) / 2).sum() / rounds) if rounds > 0 else float("nan")


def mean(values: Values) -> float | None:
    """Mean over the queries that could be scored; None without any."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if scored.size else None


def _top(
    relevance: ArrayLike, positives: ArrayLike, k: int | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The checked arguments, relevance cut to the top k."""
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    ranks = np.asarray(relevance)
    if ranks.ndim == 0 or not np.isin(ranks, (0, 1)).all():
        raise ValueError("relevance must be an array of 0 and 1 with ranks along its last axis")
    total = np.broadcast_to(np.asarray(positives, dtype=np.int64), ranks.shape[:-1])
    if (ranks.sum(axis=-1) > total).any():
        raise ValueError("a ranking holds more relevant images than positives")
    return ranks[..., :k].astype(np.bool_), total


def _sum(values: Values) -> Values:
    """Sums along the ranks from the top down, so that padding changes no bit and a perfect order gives exactly 1."""
    return np.cumsum(values, axis=-1)[..., -1] if values.shape[-1] else np.zeros(values.shape[:-1])


def _ratio(numerator: Values, denominator: NDArray[np.int64] | Values) -> Values:
    """The ratio, NaN over 0. Denominators are 0 or at least 1."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)

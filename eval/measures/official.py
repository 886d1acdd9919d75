"""INQUIRE's own metrics on scores that may be equal, as its scripts compute them with scikit-learn.

`fieldscope.eval.measures.metrics` measures strict orders, on which both agree. Here equal scores are a tie: AP takes
all of a tie's images in one step (`sklearn.metrics.average_precision_score`), nDCG gives each of them the tie's mean
gain (`sklearn.metrics.ndcg_score`), and the first hit is looked for in NumPy's own order of equal scores, which is that
of `np.argsort` and may differ between machines, as it does for the scripts.

`relevance` (1 for a relevant image, else 0) and `scores` run along the same images, in any order; `positives` are all
that there were to find. Results are from 0 to 1; without anything to find they are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldscope.eval.measures.metrics import Values


def average_precision(relevance: ArrayLike, scores: ArrayLike, positives: int) -> float:
    """The average precision over these images, times the hits among them, over min(positives, images)."""
    hits, sizes = _by_score(relevance, scores)
    if not positives:
        return math.nan
    precision = np.cumsum(hits) / np.cumsum(sizes)
    return float((hits * precision).sum() / min(positives, int(sizes.sum())))


def ndcg(relevance: ArrayLike, scores: ArrayLike, positives: int) -> float:
    """nDCG over these images, with gain 1 and discount log2(rank + 1); the ideal counts the positives that are not
    among them."""
    hits, sizes = _by_score(relevance, scores)
    if not positives:
        return math.nan
    depth = int(sizes.sum())
    discounts = np.cumsum(1.0 / np.log2(np.arange(2, depth + 2)))
    upto = discounts[np.cumsum(sizes) - 1]
    gain = (hits / sizes * np.diff(upto, prepend=0.0)).sum()
    return float(gain / discounts[min(positives, depth) - 1])


def ranked(scores: Sequence[float]) -> list[int]:
    """The places of these scores, the highest first, as INQUIRE's scripts sort them."""
    order: list[int] = np.flip(np.argsort(np.asarray(scores))).tolist()
    return order


def sorted_again(order: Sequence[int], scores: Sequence[float], k: int) -> list[int]:
    """These places with the first `k` sorted by their scores, as INQUIRE's scripts for full retrieval do with the `k`
    images that they measure. After `ranked` it changes the order of equal scores alone."""
    head = [order[place] for place in ranked([scores[place] for place in order[:k]])]
    return [*head, *order[k:]]


def _by_score(relevance: ArrayLike, scores: ArrayLike) -> tuple[Values, NDArray[np.int64]]:
    """The hits among the images with each score, the highest first, and how many images have it."""
    hits, values = np.asarray(relevance, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    return np.bincount(group, weights=hits, minlength=len(sizes)).astype(np.float64), sizes.astype(np.int64)

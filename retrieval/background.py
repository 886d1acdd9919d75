"""The background of a query: how similar a fixed sample of a collection is to it.

An image's similarity says little by itself: encoders differ in scale, and short queries are nearer to all images than
long ones. How far it stands above images at large says more, and unlike its place in a list of candidates that does not
depend on which other images were found. The sample belongs to the collection and its vectors to the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from heapq import nsmallest

import numpy as np

from fieldscope.core.types import Scale
from fieldscope.retrieval.encoder import Vectors

SAMPLE = 1000
"""At most so many images stand for a collection: mean and deviation of their similarities are then known to about 3 %
of a deviation."""

SMALLEST = 50
"""In a smaller collection the matches themselves would decide what is usual, so it has no background."""


def sampled(ids: Sequence[str]) -> list[str]:
    """The ids that stand for a collection: those with the smallest SHA-256. That depends on no order and no seed, and
    a collection that grows keeps most of them. Empty for a collection that is too small."""
    return nsmallest(SAMPLE, ids, key=lambda name: sha256(name.encode()).digest()) if len(ids) >= SMALLEST else []


def background(vectors: Vectors, direction: Vectors) -> Scale | None:
    """The scale of a sample's similarities, `vectors` (m, dim), to a query, `direction` (dim,). None where there is no
    sample, or all are equally similar."""
    return scale_of(vectors @ direction) if len(vectors) else None


def scale_of(similar: Vectors) -> Scale | None:
    """The scale of a sample's similarities, shape (m,). None where all are equally similar."""
    similarities = np.asarray(similar, dtype=np.float64)
    mean, deviation = float(similarities.mean()), float(similarities.std())
    return Scale(mean=mean, deviation=deviation) if deviation > np.finfo(np.float32).eps else None

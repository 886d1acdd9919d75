"""Vectors whose variances fall as a power law, as those of image encoders do, from a fixed generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fieldscope.retrieval.encoder import Vectors

BLOCK = 8192


@dataclass(frozen=True)
class PowerLaw:
    """`count` unit vectors of length `dim` around a common mean; the variance of direction i is i ** -`exponent`.

    Each block has a generator of its own, so that any of them is made again without those before it. All are turned by
    one reflection, which mixes every number into every other: no index profits from the axes.
    """

    count: int
    dim: int = 1024
    exponent: float = 1.0
    seed: int = 7

    def blocks(self, first: int = 0) -> Iterator[Vectors]:
        """The vectors from row `first` on, shape (any, dim)."""
        for start in range(first - first % BLOCK, self.count, BLOCK):
            block = self._drawn(start // BLOCK, min(BLOCK, self.count - start))
            yield block[max(first - start, 0) :]

    def queries(self, count: int) -> Vectors:
        """Vectors of the same distribution that are not among those, shape (count, dim)."""
        return self._drawn(-1, count)

    def _drawn(self, block: int, count: int) -> Vectors:
        rng = np.random.default_rng([self.seed, block + 1])
        scales = np.arange(1, self.dim + 1, dtype=np.float32) ** np.float32(-self.exponent / 2)
        vectors = rng.standard_normal((count, self.dim), dtype=np.float32) * scales
        vectors[:, 0] += 1.0  # encoders put their images into a cone
        mirror = np.random.default_rng(self.seed).standard_normal(self.dim, dtype=np.float32)
        mirror /= np.linalg.norm(mirror)
        vectors -= 2 * np.outer(vectors @ mirror, mirror)
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

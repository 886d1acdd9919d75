"""Vectors as 16-bit floats in one file: all of them on the disk, and in memory those that are looked at."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldscope.core.errors import IndexMismatchError
from fieldscope.retrieval.encoder import Vectors

Rows = NDArray[np.int64]

BLOCK = 16_384
"""Vectors that are read at once."""


class HalfVectors:
    """Memory-mapped vectors, shape (n, dim), as float16. What is read of them is float32.

    Half precision keeps 11 bits of each number, so an inner product of unit vectors is off by about 1e-5.
    """

    def __init__(self, path: Path, count: int, dim: int) -> None:
        """Raises `IndexMismatchError` where the file is missing or has another size."""
        try:
            # A mapping of the file itself, and not np.memmap: it takes advice on how it is read.
            with path.open("rb") as stream:
                self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise IndexMismatchError(f"{str(path)!r} can't be read; build the index again") from error
        if len(self._mapped) != 2 * count * dim:
            raise IndexMismatchError(
                f"{str(path)!r} has {len(self._mapped):,} bytes, and {count:,} vectors of length {dim} have "
                f"{2 * count * dim:,}; build the index again"
            )
        self._vectors: NDArray[np.float16] = np.frombuffer(self._mapped, np.float16).reshape(count, dim)

    def __len__(self) -> int:
        return len(self._vectors)

    def rows(self, rows: Rows) -> Vectors:
        """The vectors of these rows, shape (len(rows), dim)."""
        self._mapped.madvise(mmap.MADV_RANDOM)  # else the system reads 128 KiB around each
        return self._vectors[rows].astype(np.float32)

    def blocks(self, size: int = BLOCK, first: int = 0) -> Iterator[tuple[int, Vectors]]:
        """The vectors from the row `first` on, in order and some at a time, each time with the first one's row."""
        self._mapped.madvise(mmap.MADV_SEQUENTIAL)
        for start in range(first, len(self), size):
            yield start, self._vectors[start : start + size].astype(np.float32)


def nearest(vectors: HalfVectors, queries: Vectors, k: int, size: int = BLOCK) -> tuple[Vectors, Rows]:
    """The exact `k` nearest of all vectors to each query, shape (n, dim): scores and rows, both of shape (n, k), best
    first. Everything is read once, so many queries cost little more than one."""
    k = min(k, len(vectors))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for start, block in vectors.blocks(size):
        scores, rows = merged(scores, rows, queries @ block.T, np.arange(start, start + len(block)), k)
    return scores, rows


def merged(scores: Vectors, rows: Rows, new: Vectors, new_rows: Rows, k: int) -> tuple[Vectors, Rows]:
    """The `k` best of what was found, shape (n, k), and of new scores, shape (n, m), of these rows."""
    kept = min(k, new.shape[1])
    best = np.argpartition(-new, kept - 1, axis=1)[:, :kept]
    all_scores = np.concatenate([scores, np.take_along_axis(new, best, axis=1)], axis=1)
    all_rows = np.concatenate([rows, new_rows[best]], axis=1)
    order = np.lexsort((all_rows, -all_scores), axis=1)[:, :k]
    return np.take_along_axis(all_scores, order, axis=1), np.take_along_axis(all_rows, order, axis=1)

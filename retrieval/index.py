"""Nearest vectors: what an index must do, the registered ones, and one in plain NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.registry import Registry
from fieldscope.retrieval.encoder import Vectors

DEFAULT_INDEX = "faiss"
MAPPED_INDEX = "mapped"
"""The index whose vectors stay in their file (`fieldscope.retrieval.mapped_index`)."""

Allowed = NDArray[np.bool_]
"""Which vectors may be found, shape (len(index),), in the order of the index's ids."""


class Index(Protocol):
    """Finds the nearest vectors. Any other knowledge, such as where it is saved, is an index's own."""

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        """The `k` (or all, where there are fewer) greatest inner products for each query vector.

        `vectors` has shape (n, dim). Gives scores of shape (n, min(k, vectors that may be found)), greatest first, and
        the ids beside them; of equal scores the earlier vector comes first. With `allowed` only these vectors are
        searched, so that a filter costs no place among the `k`. It is passed only where there is a filter. Raises
        `IndexMismatchError` for another length of vector, or of `allowed`.
        """
        ...

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """The vectors under these ids, shape (len(ids), dim). Raises `ConfigError` for an id that it does not hold."""
        ...

    def __len__(self) -> int:
        """How many vectors it holds."""
        ...


INDEXES: Registry[Callable[[Sequence[str], Vectors], Index]] = Registry("index", "fieldscope.indexes")
"""Each makes an index of ids and their vectors, shape (len(ids), dim)."""


@runtime_checkable
class StoredIndex(Protocol):
    """A kind of index that keeps vectors in files of its own beside a library's, and changes only what changed."""

    def kept(self, folder: Path, ids: Sequence[str], vectors: Vectors) -> Index:
        """The index in a library's folder, with these ids and vectors, shape (len(ids), dim)."""
        ...


class FlatIndex(ABC):
    """What the built-in indexes share: all vectors, found by their ids.

    Raises `IndexMismatchError` for vectors that are not finite float32 of shape (len(ids), dim), or repeated ids.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        check_vectors(ids, vectors)
        self.ids: Sequence[str] = tuple(ids)

    @property
    @abstractmethod
    def vectors(self) -> Vectors:
        """All vectors, shape (len(ids), dim), however the index holds them."""

    @abstractmethod
    def _row(self, row: int) -> Vectors:
        """One vector, shape (dim,)."""

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {image_id: row for row, image_id in enumerate(self.ids)}

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Shape (len(ids), dim). Raises `ConfigError` for an id that the index does not hold."""
        if missing := next((image_id for image_id in ids if image_id not in self._rows), None):
            raise ConfigError(f"image {missing!r} is none of the {len(self)} in the index; index it first")
        return np.stack([self._row(self._rows[image_id]) for image_id in ids])

    def __len__(self) -> int:
        return len(self.ids)


class ExactIndex(FlatIndex):
    """All inner products, in NumPy: exact, with no dependency, good for some 100,000 vectors."""

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        super().__init__(ids, vectors)
        self._vectors = vectors

    @property
    def vectors(self) -> Vectors:
        return self._vectors

    def _row(self, row: int) -> Vectors:
        vector: Vectors = self._vectors[row]
        return vector

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self._vectors.shape[1])
        check_allowed(allowed, len(self))
        rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        scores = vectors @ (self._vectors if allowed is None else self._vectors[rows]).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), [[self.ids[i] for i in row] for row in rows[best]]


def check_vectors(ids: Sequence[str], vectors: Vectors) -> None:
    """Raises `IndexMismatchError` for vectors that can't be indexed under these ids."""
    if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.dtype != np.float32:
        raise IndexMismatchError(
            f"{len(ids)} ids came with vectors of {vectors.dtype} and shape {vectors.shape}; "
            "give one row of float32 for each id"
        )
    if not np.isfinite(vectors).all():
        raise IndexMismatchError(
            "some vectors are not finite, because the encoder overflowed or its weights are damaged; "
            "fetch the weights again, or use another encoder"
        )
    if len(set(ids)) < len(ids):
        raise IndexMismatchError("some ids come twice; give every image its own")


def check_queries(vectors: Vectors, dim: int) -> None:
    """Raises `IndexMismatchError` for query vectors that can't be compared with an index of `dim` numbers each."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise IndexMismatchError(
            f"query vectors of shape {vectors.shape} do not fit an index of length {dim}; use the index's own encoder"
        )


def check_allowed(allowed: Allowed | None, count: int) -> None:
    """Raises `IndexMismatchError` for a filter that does not say of each of `count` vectors whether it may be found."""
    if allowed is not None and (allowed.shape != (count,) or allowed.dtype != np.bool_):
        raise IndexMismatchError(
            f"a filter of {allowed.dtype} and shape {allowed.shape} does not fit an index of {count} vectors; give a"
            " boolean for each of them"
        )

"""Nearest vectors: the seam to whatever finds them, and a plain NumPy index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.manifest import read_index, write_index


class Index(Protocol):
    """Vectors of one encoder under their ids."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of each vector, in order."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Shape (len(ids), dim)."""
        ...

    @property
    def encoder_fingerprint(self) -> str:
        """Whose vectors these are."""
        ...

    def vector(self, image_id: str) -> Vectors:
        """One image's vector, shape (dim,). Raises `ConfigError` where the index does not hold the image."""
        ...

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, list[list[str]]]:
        """The `k` (or all, where there are fewer) greatest inner products for each query vector.

        `vectors` has shape (n, dim). Gives scores of shape (n, min(k, len(ids))), greatest first, and the ids beside
        them; of equal scores the earlier vector comes first. Raises `IndexMismatchError` for another length of vector.
        """
        ...

    def save(self, folder: Path, *, encoder_name: str = "", attributes: Mapping[str, Any] | None = None) -> None:
        """Write to `folder`, from which any index type loads it.

        `encoder_name` is what people call the encoder; `attributes`, as JSON, are kept in the manifest.
        Raises `ConfigError` where the disk refuses.
        """
        ...


class StoredIndex(ABC):
    """What index types share: ids and vectors of one encoder, kept in a folder from which any type loads them.

    Raises `IndexMismatchError` for vectors that are not finite float32 of shape (len(ids), dim), or repeated ids.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors, encoder_fingerprint: str) -> None:
        check_vectors(ids, vectors)
        self.ids: Sequence[str] = tuple(ids)
        self.encoder_fingerprint = encoder_fingerprint

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

    def vector(self, image_id: str) -> Vectors:
        if image_id not in self._rows:
            raise ConfigError(f"image {image_id!r} is none of the {len(self.ids)} in the index; index it first")
        return self._row(self._rows[image_id])

    def save(self, folder: Path, *, encoder_name: str = "", attributes: Mapping[str, Any] | None = None) -> None:
        write_index(
            folder,
            self.ids,
            self.vectors,
            self.encoder_fingerprint,
            encoder_name=encoder_name,
            attributes=attributes,
        )

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> Self:
        """The index in `folder`. Raises `IndexMismatchError` where it is damaged, or another encoder's."""
        manifest, vectors = read_index(folder, encoder)
        return cls(manifest.ids, vectors, manifest.encoder_fingerprint)


class ExactIndex(StoredIndex):
    """All inner products, in NumPy: exact, with no dependency, good for some 100,000 vectors."""

    def __init__(self, ids: Sequence[str], vectors: Vectors, encoder_fingerprint: str) -> None:
        super().__init__(ids, vectors, encoder_fingerprint)
        self._vectors = vectors

    @property
    def vectors(self) -> Vectors:
        return self._vectors

    def _row(self, row: int) -> Vectors:
        vector: Vectors = self._vectors[row]
        return vector

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self._vectors.shape[1])
        scores = vectors @ self._vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), [[self.ids[i] for i in row] for row in best]


def check_vectors(ids: Sequence[str], vectors: Vectors) -> None:
    """Raises `IndexMismatchError` for vectors that can't be indexed under these ids."""
    if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.dtype != np.float32:
        raise IndexMismatchError(f"{len(ids)} ids came with vectors of {vectors.dtype} and shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise IndexMismatchError("some vectors are not finite; the encoder overflowed, or its weights are damaged")
    if len(set(ids)) < len(ids):
        raise IndexMismatchError("some ids come twice; every image needs its own")


def check_queries(vectors: Vectors, dim: int) -> None:
    """Raises `IndexMismatchError` for query vectors that can't be compared with an index of `dim` numbers each."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise IndexMismatchError(
            f"query vectors of shape {vectors.shape} do not fit an index of length {dim}; use the index's own encoder"
        )

"""Nearest vectors in a file that is mapped into memory: exact, for collections that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.index import Allowed, check_allowed, check_queries

_ROWS = 65_536  # vectors that are compared at once: 256 MB of 1,024 numbers each


class MappedIndex:
    """All inner products, some rows at a time: no copy of the vectors is made, so `vectors` may be a `numpy.memmap`.

    A search reads the whole file. Raises `IndexMismatchError` for vectors that are not float32 of shape
    (len(ids), dim), or repeated ids.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.dtype != np.float32:
            raise IndexMismatchError(
                f"{len(ids)} ids came with vectors of {vectors.dtype} and shape {vectors.shape}; "
                "give one row of float32 for each id"
            )
        self.ids = tuple(ids)
        self._vectors = vectors
        self._rows = {document_id: row for row, document_id in enumerate(self.ids)}
        if len(self._rows) < len(self.ids):
            raise IndexMismatchError("some ids come twice; give every document its own")

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Shape (len(ids), dim). Raises `ConfigError` for an id that the index does not hold."""
        if missing := next((document_id for document_id in ids if document_id not in self._rows), None):
            raise ConfigError(f"document {missing!r} is none of the {len(self)} in the index; index it first")
        return np.array(self._vectors[[self._rows[document_id] for document_id in ids]])

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self._vectors.shape[1])
        check_allowed(allowed, len(self))
        scores = np.empty((len(vectors), 0), dtype=np.float32)
        rows = np.empty((len(vectors), 0), dtype=np.int64)
        for start in range(0, len(self.ids), _ROWS):
            block = self._vectors[start : start + _ROWS]
            within = np.arange(len(block)) if allowed is None else np.flatnonzero(allowed[start : start + _ROWS])
            own = vectors @ (block if allowed is None else block[within]).T
            scores = np.concatenate([scores, own], axis=1)
            rows = np.concatenate([rows, np.broadcast_to(start + within, own.shape)], axis=1)
            # A stable sort keeps the earlier of equal scores, since earlier rows stand before later ones.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        return scores, [[self.ids[row] for row in found] for found in rows]

    def __len__(self) -> int:
        return len(self.ids)

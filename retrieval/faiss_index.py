"""Nearest vectors through FAISS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from retrieval.encoder import Encoder, Vectors
from retrieval.index import check_queries, check_vectors
from retrieval.manifest import read_index, write_index


class FaissIndex:
    """FAISS's flat inner-product index: exact, and fast on millions of vectors.

    It is saved as plain vectors, since a flat index is nothing else, and FAISS's own files need not be trusted.
    Raises `IndexMismatchError` as `ExactIndex` does.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors, encoder_fingerprint: str) -> None:
        check_vectors(ids, vectors)
        self.ids: Sequence[str] = tuple(ids)
        self.encoder_fingerprint = encoder_fingerprint
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))

    @property
    def vectors(self) -> Vectors:
        vectors: Vectors = self._index.reconstruct_n(0, len(self.ids))
        return vectors

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self._index.d)
        k = min(k, len(self.ids))
        if k < 1:
            return np.empty((len(vectors), 0), dtype=np.float32), [[] for _ in vectors]
        scores, found = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        order = np.lexsort((found, -scores), axis=1)  # FAISS leaves the order of equal scores open
        scores, found = np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)
        return scores, [[self.ids[i] for i in row] for row in found]

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

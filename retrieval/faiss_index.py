"""Nearest vectors through FAISS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import faiss
import numpy as np

from fieldscope.core.errors import IndexMismatchError
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.index import Allowed, FlatIndex, check_allowed, check_queries, check_vectors


class FaissIndex(FlatIndex):
    """FAISS's flat inner-product index: exact, and fast on millions of vectors.

    It is saved as plain vectors, since a flat index is nothing else, and FAISS's own files need not be trusted. FAISS
    holds them; a copy beside it would double the memory.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        super().__init__(ids, vectors)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))

    @classmethod
    def of_blocks(cls, ids: Sequence[str], blocks: Iterable[Vectors], dim: int) -> Self:
        """An index of vectors that come some at a time, shape (any, dim) each, in the order of the ids, so that not all
        of them lie in memory beside it. The ids must differ. Raises `IndexMismatchError` as the constructor does."""
        index = cls((), np.empty((0, dim), dtype=np.float32))
        for block in blocks:
            check_queries(block, dim)
            check_vectors(ids[index._index.ntotal : index._index.ntotal + len(block)], block)
            index._index.add(np.ascontiguousarray(block))
        if index._index.ntotal != len(ids):
            raise IndexMismatchError(f"{len(ids)} ids came with {index._index.ntotal} vectors; give one for each id")
        index.ids = tuple(ids)
        return index

    @property
    def vectors(self) -> Vectors:
        vectors: Vectors = self._index.reconstruct_n(0, len(self.ids))
        return vectors

    def _row(self, row: int) -> Vectors:
        return np.asarray(self._index.reconstruct(row), dtype=np.float32)

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self._index.d)
        check_allowed(allowed, len(self.ids))
        k = min(k, len(self.ids) if allowed is None else int(allowed.sum()))
        if k < 1:
            return np.empty((len(vectors), 0), dtype=np.float32), [[] for _ in vectors]
        settings: Any = faiss.SearchParameters
        chosen = None if allowed is None else settings(sel=selector(allowed))
        scores, found = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k, params=chosen)
        order = np.lexsort((found, -scores), axis=1)  # FAISS leaves the order of equal scores open
        scores, found = np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)
        return scores, [[self.ids[i] for i in row] for row in found]


def selector(allowed: Allowed) -> Any:
    """FAISS's own form of which vectors may be found."""
    make: Any = faiss.IDSelectorBitmap  # its declared types are those of C++
    return make(np.packbits(allowed, bitorder="little"))

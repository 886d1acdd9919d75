"""An index of millions of vectors: codes in memory find candidates, and vectors on the disk rank them exactly."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.half_vectors import HalfVectors, Rows, merged
from fieldscope.retrieval.id_file import IdFile
from fieldscope.retrieval.index import Allowed, check_allowed, check_queries
from fieldscope.retrieval.inverted_lists import InvertedLists, Quantiser
from fieldscope.retrieval.large_manifest import CODES, LISTS, QUANTISER, VECTORS, LargeManifest, read_large

EXACT_ROWS = 20_000
"""Of so few vectors that may be found, all are scored."""

_AT_ONCE = 4096  # vectors that are scored exactly at once


class LargeIndex:
    """A built index in `folder`, as an `Index`. In memory are the codes and what a search looks at.

    Scores are inner products with the vectors in half precision. Which vectors are looked at is an approximation,
    whose recall `manifest.recall` tells; a filter that leaves few vectors is exact.
    """

    def __init__(self, folder: Path, manifest: LargeManifest | None = None) -> None:
        """The index in a folder, with a manifest in place of the one there. Raises `IndexMismatchError` where the
        folder holds no such index, or a damaged one."""
        self.manifest = manifest = manifest or read_large(folder)
        self.ids = IdFile(folder)
        self._vectors = HalfVectors(folder / VECTORS, manifest.count, manifest.dim)
        quantiser = Quantiser.read(folder / QUANTISER)
        shape = (quantiser.codec, quantiser.code_bytes, len(quantiser.centres), quantiser.projection.shape[1])
        lists = _mapped(folder / LISTS, np.int32, (manifest.count,))
        codes = _mapped(folder / CODES, np.uint8, (manifest.count, manifest.code_bytes))
        expected = (manifest.codec, manifest.code_bytes, manifest.lists, manifest.dim)
        if shape != expected or len(self.ids) != manifest.count or lists.min() < 0 or lists.max() >= manifest.lists:
            raise IndexMismatchError(f"{str(folder)!r} is damaged; build the index again")
        self._lists = InvertedLists(quantiser, lists, codes)

    def __len__(self) -> int:
        return self.manifest.count

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        scores, rows = self.nearest(vectors, k, allowed)
        return scores, [[self.ids[row] for row in found] for found in rows.tolist()]

    def nearest(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, Rows]:
        """As `search`, with rows in place of ids: both of shape (n, k)."""
        check_queries(vectors, self.manifest.dim)
        check_allowed(allowed, len(self))
        possible = len(self) if allowed is None else int(allowed.sum())
        k = min(k, possible)
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if k < 1:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        wanted = min(possible, ceil(self.manifest.candidates * max(k / self.manifest.recall.k, 1)))
        if possible <= max(EXACT_ROWS, wanted):
            rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            return self._exact(queries, rows, k)
        # A list holds as many fewer vectors that may be found, so that as many more lists are looked into.
        probes = ceil(self.manifest.probes * len(self) / possible)
        return self.rescored(queries, self.candidates(queries, wanted, k, probes, allowed), k)

    def candidates(self, queries: Vectors, wanted: int, k: int, probes: int, allowed: Allowed | None = None) -> Rows:
        """The rows of the best `wanted` vectors by their codes in the `probes` nearest lists, shape (n, wanted). Where
        these hold fewer than `k`, more lists are looked into."""
        rows = self._lists.search(queries, wanted, probes, allowed)
        while probes < self.manifest.lists and len(short := np.flatnonzero((rows >= 0).sum(axis=1) < k)):
            probes *= 4
            rows[short] = self._lists.search(queries[short], wanted, probes, allowed)
        return rows

    def rescored(self, queries: Vectors, candidates: Rows, k: int) -> tuple[Vectors, Rows]:
        """The exact best `k` of each query's candidates, shape (n, m) with -1 for none: scores and rows, (n, k)."""
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for at, (query, found) in enumerate(zip(queries, candidates, strict=True)):
            looked_at = np.sort(found[found >= 0])  # in the order of the file
            similar = self._vectors.rows(looked_at) @ query
            best = np.lexsort((looked_at, -similar))[:k]
            scores[at], rows[at] = similar[best], looked_at[best]
        return scores, rows

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """The vectors under these ids in half precision, shape (len(ids), dim). Raises `ConfigError` for an id that it
        does not hold."""
        rows = [self.ids.row(image_id) for image_id in ids]
        if None in rows:
            missing = ids[rows.index(None)]
            raise ConfigError(f"image {missing!r} is none of the {len(self):,} in the index; index it first")
        return self._vectors.rows(np.array(rows, dtype=np.int64))

    def _exact(self, queries: Vectors, chosen: Rows, k: int) -> tuple[Vectors, Rows]:
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            scores, rows = merged(scores, rows, queries @ self._vectors.rows(part).T, part, k)
        return scores, rows


def _mapped(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.memmap(path, dtype=dtype, mode="r", shape=shape)
    except (OSError, ValueError) as error:
        raise IndexMismatchError(f"{str(path)!r} is missing or too short; build the index again") from error

"""Inverted lists of quantised vectors through FAISS: a search looks into the lists whose centres are nearest.

Vectors are projected onto the directions in which they vary most. A list holds what is left of each projected vector
beside the list's centre, as one byte a number (scalar quantisation) or one byte for several (product quantisation,
Jégou et al. 2011). The projection spreads the variance evenly over what shares a byte: the closed form of optimised
product quantisation (Ge et al. 2013, section 4), which no iteration has to approximate.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.files import replacing
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.faiss_index import selector
from fieldscope.retrieval.half_vectors import Rows
from fieldscope.retrieval.index import Allowed

Codec = Literal["sq", "pq"]
Codes = NDArray[np.uint8]
Lists = NDArray[np.int32]

_KEPT = 0.995
"""The projection keeps this share of what tells inner products apart, the sum of squared variances."""

_ROUNDS = 10
_PER_LIST = 64
_TO_QUANTISE = 256 * 64
_SEED = 20_250_110


@dataclass(frozen=True)
class Quantiser:
    """What was learned from a sample: a projection (width, dim) with orthonormal rows, the lists' centres
    (lists, width), and the codec's numbers as FAISS has them. `code_bytes` is the size of one code.
    """

    codec: Codec
    code_bytes: int
    projection: Vectors
    centres: Vectors
    numbers: Vectors

    @classmethod
    def learned(cls, sample: Vectors, codec: Codec, code_bytes: int, lists: int) -> Quantiser:
        """From a sample, shape (m, dim), which takes minutes for thousands of lists. `code_bytes` counts for product
        quantisation only, and divides the width."""
        projection = _projection(sample, code_bytes if codec == "pq" else 8)
        projected = np.ascontiguousarray(sample @ projection.T)
        width = projected.shape[1]
        clusters = faiss.Kmeans(
            width,
            lists,
            niter=_ROUNDS,
            spherical=True,  # a centre is nearest by its direction, as inner products have it
            seed=_SEED,
            max_points_per_centroid=_PER_LIST,
            min_points_per_centroid=1,
        )
        clusters.train(projected)
        centres: Vectors = np.asarray(clusters.centroids, dtype=np.float32)
        chosen = np.random.default_rng(_SEED).permutation(len(projected))[:_TO_QUANTISE]
        rest = np.ascontiguousarray(_rest(projected[chosen], centres)[1])
        if codec == "pq":
            product = faiss.ProductQuantizer(width, code_bytes, 8)
            product.cp.niter = _ROUNDS
            product.train(rest)
            return cls(codec, code_bytes, projection, centres, faiss.vector_to_array(product.centroids))
        scalar = faiss.ScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit)
        scalar.train(rest)
        return cls(codec, width, projection, centres, faiss.vector_to_array(scalar.trained))

    @classmethod
    def read(cls, path: Path) -> Quantiser:
        """What `write` wrote. Raises `IndexMismatchError` where it can't be read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                codec, code_bytes = str(stored["codec"]), int(stored["code_bytes"])
                projection, centres, numbers = (
                    np.asarray(stored[name], np.float32) for name in ("projection", "centres", "numbers")
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise IndexMismatchError(f"{str(path)!r} can't be read; build the index again") from error
        width = len(projection)
        sizes = {"pq": (width % max(code_bytes, 1) == 0, 256 * width), "sq": (code_bytes == width, 2 * width)}
        fits, numbers_size = sizes.get(codec, (False, 0))
        sound = fits and projection.ndim == centres.ndim == 2 and centres.shape[1] == width
        finite = all(np.isfinite(part).all() for part in (projection, centres, numbers))
        if not (sound and finite and numbers.shape == (numbers_size,)):
            raise IndexMismatchError(f"{str(path)!r} is damaged; build the index again")
        return cls("pq" if codec == "pq" else "sq", code_bytes, projection, centres, numbers)

    def write(self, path: Path) -> None:
        """Write it to a file, in one step. Raises `OSError`."""
        with replacing(path) as partial, partial.open("wb") as stream:
            np.savez(stream, **vars(self))

    @property
    def width(self) -> int:
        """Length of a projected vector."""
        return int(self.centres.shape[1])

    def encode(self, vectors: Vectors) -> tuple[Lists, Codes]:
        """The list and the code of each vector: shapes (n,) and (n, code_bytes)."""
        lists, rest = _rest(np.ascontiguousarray(vectors @ self.projection.T), self.centres)
        return lists, self._codec().compute_codes(np.ascontiguousarray(rest))

    def _codec(self) -> faiss.ProductQuantizer | faiss.ScalarQuantizer:
        if self.codec == "pq":
            product = faiss.ProductQuantizer(self.width, self.code_bytes, 8)
            faiss.copy_array_to_vector(self.numbers, product.centroids)
            return product
        scalar = faiss.ScalarQuantizer(self.width, faiss.ScalarQuantizer.QT_8bit)
        faiss.copy_array_to_vector(self.numbers, scalar.trained)
        return scalar


class InvertedLists:
    """Codes in their lists, in memory, searched by approximate inner products."""

    def __init__(self, quantiser: Quantiser, lists: Lists, codes: Codes) -> None:
        """`lists`, shape (n,), and `codes`, shape (n, code_bytes), in the order of the vectors."""
        self._quantiser = quantiser
        centres = faiss.IndexFlatIP(quantiser.width)
        centres.add(quantiser.centres)
        shape = (centres, quantiser.width, len(quantiser.centres))
        self._index: Any
        if quantiser.codec == "pq":
            self._index = faiss.IndexIVFPQ(*shape, quantiser.code_bytes, 8, faiss.METRIC_INNER_PRODUCT)
            faiss.copy_array_to_vector(quantiser.numbers, self._index.pq.centroids)
        else:
            kind = faiss.ScalarQuantizer.QT_8bit
            self._index = faiss.IndexIVFScalarQuantizer(*shape, kind, faiss.METRIC_INNER_PRODUCT, True)
            faiss.copy_array_to_vector(quantiser.numbers, self._index.sq.trained)
        self._index.is_trained = True
        order = np.argsort(lists, kind="stable")
        ends = np.searchsorted(lists[order], np.arange(len(quantiser.centres) + 1))
        for number, (start, end) in enumerate(pairwise(ends)):
            if start < end:
                rows = np.ascontiguousarray(order[start:end], dtype=np.int64)
                held = np.ascontiguousarray(codes[rows])
                self._index.invlists.add_entries(
                    number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(held.reshape(-1))
                )
        self._index.ntotal = len(lists)

    @property
    def count(self) -> int:
        """How many lists there are."""
        return int(self._index.nlist)

    def search(self, queries: Vectors, k: int, probes: int, allowed: Allowed | None = None) -> Rows:
        """The rows of about the `k` nearest of the vectors in the `probes` nearest lists, shape (n, k), best first; -1
        behind them where these lists hold fewer."""
        projected = np.ascontiguousarray(queries @ self._quantiser.projection.T)
        chosen = {} if allowed is None else {"sel": selector(allowed)}
        settings: Any = faiss.SearchParametersIVF
        rows: Rows = self._index.search(projected, k, params=settings(nprobe=min(probes, self.count), **chosen))[1]
        return rows


def _projection(sample: Vectors, parts: int) -> Vectors:
    """Orthonormal rows, shape (width, dim), whose number `parts` divides: the leading directions of the sample's second
    moments, which keep inner products (a centred projection would not), in the order in which neighbours share a code.

    Each direction, by falling variance, goes to the part with the smallest product of variances that has room.
    """
    moments = (sample.T @ sample / len(sample)).astype(np.float64)
    variances, directions = np.linalg.eigh(moments)
    variances, directions = np.maximum(variances[::-1], 1e-12), directions[:, ::-1]
    kept = np.cumsum(variances**2) / np.sum(variances**2)
    enough = int(np.searchsorted(kept, _KEPT)) + 1
    room = min(-(-enough // parts), len(variances) // parts)
    width = room * parts
    members: list[list[int]] = [[] for _ in range(parts)]
    weights = np.zeros(parts)
    for direction in range(width):
        open_parts = [part for part in range(parts) if len(members[part]) < room]
        part = min(open_parts, key=lambda part: (weights[part], part))
        members[part].append(direction)
        weights[part] += np.log(variances[direction] / variances[width - 1])
    order = [direction for part in members for direction in part]
    rows: Vectors = np.ascontiguousarray(directions[:, order].T, dtype=np.float32)
    return rows


def _rest(projected: Vectors, centres: Vectors) -> tuple[Lists, Vectors]:
    """The list of each projected vector, shape (n,), and what is left beside its centre, shape (n, width)."""
    lists = np.argmax(projected @ centres.T, axis=1).astype(np.int32)
    return lists, projected - centres[lists]

"""Vectors in a LanceDB table: a store that takes more of them without being written again, and keeps its versions.

A table lies in a folder, or in object storage that LanceDB can reach (`s3://bucket/path`). Searches are exact scans of
the table; LanceDB is an extra of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from fieldscope.core.errors import ConfigError, IndexMismatchError, first_line
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.index import Allowed, check_allowed, check_queries, check_vectors

_TABLE = "vectors"
_AT_ONCE = 20_000  # vectors that are written at once
_FOLDER = "lancedb"


class LanceIndex:
    """A LanceDB table of ids and vectors, as an `Index`. The order of its ids is that in which they came.

    Reading and writing raise `ConfigError` where LanceDB does, or is not installed.
    """

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        """A table in memory. Raises `IndexMismatchError` for vectors that do not fit the ids, or repeated ids."""
        check_vectors(ids, vectors)
        self._table: Any = _connected("memory://").create_table(_TABLE, schema=_schema(vectors.shape[1]))
        self._take((), np.empty(0, np.int64), vectors.shape[1])
        self.append(ids, vectors)

    @classmethod
    def open(cls, uri: str, dim: int | None = None, version: int | None = None) -> Self:
        """The table at a folder or an address of object storage; a new one for vectors of length `dim`, where there is
        none. With a `version` as it was then, to be read only."""
        index = cls.__new__(cls)
        database = _connected(uri)
        with _reporting(uri):
            try:
                index._table = database.open_table(_TABLE)
            except (ValueError, FileNotFoundError):
                if dim is None:
                    raise ConfigError(f"{uri!r} holds no vectors; give their length to make a new table") from None
                index._table = database.create_table(_TABLE, schema=_schema(dim))
            if version is not None:
                index._table.checkout(version)
            stored = index._table.search().select(["serial", "id"]).limit(None).to_arrow().sort_by("serial")
            held = index._table.schema.field("vector").type.list_size
        if dim is not None and held != dim:
            raise IndexMismatchError(f"{uri!r} holds vectors of length {held}, and not {dim}; use another folder")
        index._take(stored["id"].to_pylist(), stored["serial"].to_numpy(), held)
        return index

    @classmethod
    def kept(cls, folder: Path, ids: Sequence[str], vectors: Vectors) -> Self:
        """The table beside an index's own files in `folder`, with these vectors: those that it lacks are appended, and
        those that changed or are gone are removed."""
        index = cls.open(str(folder / _FOLDER), vectors.shape[1])
        wanted = {image_id: row for row, image_id in enumerate(ids)}
        here = [image_id for image_id in index.ids if image_id in wanted]
        same = {
            image_id
            for image_id, vector in zip(here, index.vectors_of(here), strict=True)
            if (vector == vectors[wanted[image_id]]).all()
        }
        index.remove([image_id for image_id in index.ids if image_id not in same])
        missing = [row for image_id, row in wanted.items() if image_id not in same]
        if missing:
            index.append([ids[row] for row in missing], vectors[missing])
        order = [index._rows[image_id] for image_id in ids]
        index._take(ids, index._serials[order], index.dim)
        return index

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def version(self) -> int:
        """Which version of the table this is. Every change makes a new one."""
        return int(self._table.version)

    def versions(self) -> list[int]:
        """The versions that can be opened."""
        return [int(entry["version"]) for entry in self._table.list_versions()]

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add vectors of new ids, in their order. What the table has stays as it lies. Raises `IndexMismatchError` for
        vectors that do not fit, or ids that it holds already."""
        check_vectors(ids, vectors)
        check_queries(vectors, self.dim)
        if held := next((image_id for image_id in ids if image_id in self._rows), None):
            raise IndexMismatchError(f"{held!r} is in the table already; give new ids, or remove it first")
        first = int(self._serials.max(initial=-1)) + 1
        serials = np.arange(first, first + len(ids))
        with _reporting(_TABLE):
            for start in range(0, len(ids), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                flat = pa.array(np.ascontiguousarray(vectors[part]).reshape(-1))
                columns = [
                    pa.array(serials[part]),
                    pa.array(list(ids[part])),
                    pa.FixedSizeListArray.from_arrays(flat, self.dim),
                ]
                self._table.add(pa.table(columns, schema=_schema(self.dim)))
        self._take((*self.ids, *ids), np.concatenate([self._serials, serials]), self.dim)

    def remove(self, ids: Sequence[str]) -> None:
        """Leave out the vectors under these ids. Ids that it does not hold are passed over."""
        gone = {image_id for image_id in ids if image_id in self._rows}
        if not gone:
            return
        with _reporting(_TABLE):
            self._table.delete(_among(self._serials[[self._rows[image_id] for image_id in gone]]))
        kept = [row for row, image_id in enumerate(self.ids) if image_id not in gone]
        self._take([self.ids[row] for row in kept], self._serials[kept], self.dim)

    def search(self, vectors: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Vectors, list[list[str]]]:
        check_queries(vectors, self.dim)
        check_allowed(allowed, len(self))
        k = min(k, len(self) if allowed is None else int(allowed.sum()))
        if k < 1:
            return np.empty((len(vectors), 0), dtype=np.float32), [[] for _ in vectors]
        condition = None if allowed is None else self._condition(allowed)
        scores, ids = np.empty((len(vectors), k), np.float32), []
        for at, vector in enumerate(np.ascontiguousarray(vectors, dtype=np.float32)):
            with _reporting(_TABLE):
                query = self._table.search(vector, vector_column_name="vector").distance_type("dot")
                query = query.where(condition, prefilter=True) if condition else query
                found = query.bypass_vector_index().select(["serial", "_distance"]).limit(k).to_arrow()
            rows = np.searchsorted(self._sorted, found["serial"].to_numpy())
            similar, rows = 1 - found["_distance"].to_numpy(), self._order[rows]
            order = np.lexsort((rows, -similar))
            scores[at] = similar[order]
            ids.append([self.ids[row] for row in rows[order]])
        return scores, ids

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Shape (len(ids), dim). Raises `ConfigError` for an id that the index does not hold."""
        if missing := next((image_id for image_id in ids if image_id not in self._rows), None):
            raise ConfigError(f"image {missing!r} is none of the {len(self)} in the index; index it first")
        wanted = self._serials[[self._rows[image_id] for image_id in ids]]
        if not len(wanted):
            return np.empty((0, self.dim), np.float32)
        with _reporting(_TABLE):
            query = self._table.search().select(["serial", "vector"]).limit(None)
            condition = _among(np.unique(wanted)) if len(wanted) < len(self) else None
            stored = (query.where(condition) if condition else query).to_arrow().sort_by("serial")
        flat = stored["vector"].combine_chunks().flatten().to_numpy()
        vectors: Vectors = flat.reshape(-1, self.dim)[np.searchsorted(stored["serial"].to_numpy(), wanted)]
        return vectors

    def _take(self, ids: Sequence[str], serials: np.ndarray[Any, np.dtype[np.int64]], dim: int) -> None:
        """Know these ids, in this order, and the table's serial number of each."""
        self.ids: Sequence[str] = tuple(ids)
        self._serials = serials.astype(np.int64)
        self._dim = dim
        self._order = np.argsort(self._serials)
        self._sorted = self._serials[self._order]
        self.__dict__.pop("_rows", None)

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {image_id: row for row, image_id in enumerate(self.ids)}

    def _condition(self, allowed: Allowed) -> str | None:
        """The shorter way to say which serial numbers may be found."""
        if allowed.all():
            return None
        if 2 * int(allowed.sum()) <= len(allowed):
            return _among(self._serials[allowed])
        return f"NOT {_among(self._serials[~allowed])}"


def _among(serials: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    return f"(serial IN ({', '.join(map(str, serials.tolist()))}))"


def _schema(dim: int) -> pa.Schema:
    return pa.schema([("serial", pa.int64()), ("id", pa.string()), ("vector", pa.list_(pa.float32(), dim))])


def _connected(uri: str) -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise ConfigError("LanceDB is not installed; install it with `pip install 'fieldscope[lancedb]'`") from error
    with _reporting(uri):
        return lancedb.connect(uri)


@contextmanager
def _reporting(where: str) -> Iterator[None]:
    """Turn LanceDB's errors into a `ConfigError`: it raises RuntimeError and OSError for all that the disk or the
    storage refuses."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"LanceDB failed at {where!r} ({first_line(error)}); check the path and the storage"
        ) from error

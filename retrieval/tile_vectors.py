"""Vectors of the tiles of images, kept in one file, image by image, so that no image is cut and encoded twice."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.encoder import Vectors

FILE = "tiles.sqlite"
MOST_BYTES = 4_000_000_000
"""A file of this size takes no more vectors; those of further images are made each time."""

_LOG = logging.getLogger(__name__)
_SCHEMA = """
create table if not exists tiles (
    image text not null, encoder text not null, mark text not null, layout text not null, vectors blob not null,
    primary key (image, encoder)
) without rowid
"""


class TileVectors:
    """The vectors of each image's tiles under one encoder, in `folder`/tiles.sqlite as 16-bit floats.

    A stored image survives `kill -9`. Several threads and processes may use the file. Where it can't be written, no
    vectors are kept, and the log says so once.
    """

    def __init__(self, folder: Path, encoder_fingerprint: str, most_bytes: int = MOST_BYTES) -> None:
        self.path = folder / FILE
        self._encoder = encoder_fingerprint
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._warned = False

    def get(self, image_id: str, mark: str, layout: str, dim: int) -> Vectors | None:
        """Shape (tiles, dim); None where they are not stored for this `mark`, which changes when the image does, and
        for the tiles of this `layout`."""
        if not self.path.is_file():
            return None
        wanted = "select vectors from tiles where image = ? and encoder = ? and mark = ? and layout = ?"
        try:
            with self._lock, closing(sqlite3.connect(self.path)) as database:
                row = database.execute(wanted, (image_id, self._encoder, mark, layout)).fetchone()
        except sqlite3.Error:  # damaged: made again
            return None
        return _read(row[0], dim) if row is not None else None

    def any(self) -> bool:
        """Whether an image has vectors under this encoder."""
        found = self._rows("select image, vectors from tiles where encoder = ? limit 1", self._encoder)
        return next(found, None) is not None

    def marks(self) -> dict[str, tuple[str, str]]:
        """The mark and the layout that each image with vectors under this encoder was kept with."""
        rows = self._rows("select image, mark, layout from tiles where encoder = ?", self._encoder)
        return {image_id: (str(mark), str(layout)) for image_id, mark, layout in rows}

    def best(self, image_ids: Sequence[str], direction: Vectors) -> Vectors:
        """The similarity of each image's nearest tile to a query's vector, shape (dim,); minus infinity where an image
        has none. One image at a time is in memory."""
        nearest = dict.fromkeys(image_ids, -np.inf)
        for image_id, stored in self._rows("select image, vectors from tiles where encoder = ?", self._encoder):
            if image_id in nearest and (vectors := _read(stored, len(direction))) is not None and len(vectors):
                nearest[image_id] = float((vectors @ direction).max())
        return np.array([nearest[image_id] for image_id in image_ids], dtype=np.float32)

    def put(self, image_id: str, mark: str, layout: str, vectors: Vectors) -> None:
        """Keep the vectors of an image's tiles, in place of earlier ones."""
        row = (image_id, self._encoder, mark, layout, vectors.astype(np.float16).tobytes())
        try:
            if self.path.is_file() and self.path.stat().st_size >= self._most_bytes:
                self._warn(f"it has {self._most_bytes / 1e9:g} GB")
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                database.execute(_SCHEMA)
                database.execute("insert or replace into tiles values (?, ?, ?, ?, ?)", row)
        except (sqlite3.Error, OSError) as error:
            self._warn(str(error))

    def require_writable(self) -> None:
        """Raises `ConfigError` where the file can't be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                database.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"{str(self.path)!r} can't be written ({error}); free some disk space, or remove the file"
            ) from error

    def _rows(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        if not self.path.is_file():
            return
        try:
            with closing(sqlite3.connect(self.path)) as database:
                yield from database.execute(query, values)
        except sqlite3.Error:  # damaged: as if it were not there
            return

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s takes no more vectors (%s); they are made again in each run", self.path, why)


def _read(stored: object, dim: int) -> Vectors | None:
    """Vectors as they were stored, shape (tiles, dim); None for anything else."""
    if not isinstance(stored, bytes) or len(stored) % (2 * dim):
        return None
    vectors: Vectors = np.frombuffer(stored, np.float16).astype(np.float32).reshape(-1, dim)
    return vectors if np.isfinite(vectors).all() else None

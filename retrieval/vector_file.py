"""Vectors in one SQLite file under any keys, and what is known of encoders, so that neither costs a model twice."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from fieldscope.core.private import private_file, private_folder
from fieldscope.retrieval.encoder import Vectors

MOST_BYTES = 4_000_000_000
"""A file of this size takes no more vectors; further ones are made each time."""

_LOG = logging.getLogger(__name__)
_SCHEMA = """
create table if not exists vectors (key text primary key, vector blob not null) without rowid;
create table if not exists facts (key text primary key, facts text not null) without rowid;
"""


class VectorFile:
    """Vectors of shape (dim,) as float32, and short texts (`facts`), by their keys.

    What was put survives `kill -9`. Several threads and processes may use the file. One that is damaged or can't be
    written keeps nothing, and the log says so once: everything in it can be made again.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._warned = False

    def get(self, keys: Sequence[str], dim: int) -> dict[str, Vectors]:
        """The vectors of these keys that are kept, each of shape (dim,)."""
        found: dict[str, Vectors] = {}
        if not self.path.is_file():
            return found
        try:
            with self._open() as database:
                for key in keys:
                    row = database.execute("select vector from vectors where key = ?", (key,)).fetchone()
                    if row is not None and (vector := _read(row[0], dim)) is not None:
                        found[key] = vector
        except sqlite3.Error as error:
            self._warn(error)
        return found

    def put(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep vectors in place of earlier ones under these keys."""
        rows = [(key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items()]
        if self.path.is_file() and self.path.stat().st_size >= self._most_bytes:
            self._warn(f"it has {self._most_bytes / 1e9:g} GB")
            return
        self._write("insert or replace into vectors values (?, ?)", rows)

    def facts(self, key: str) -> str | None:
        """The text that is kept under a key."""
        if not self.path.is_file():
            return None
        try:
            with self._open() as database:
                row = database.execute("select facts from facts where key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._warn(error)
            return None
        return str(row[0]) if row is not None else None

    def put_facts(self, key: str, facts: str) -> None:
        """Keep a text in place of an earlier one."""
        self._write("insert or replace into facts values (?, ?)", [(key, facts)])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            if not self.path.parent.is_dir():
                private_folder(self.path.parent)
            if not self.path.is_file():
                private_file(self.path)
            with self._open() as database, database:
                database.executescript(_SCHEMA)
                database.executemany(statement, rows)
        except (sqlite3.Error, OSError) as error:
            self._warn(error)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, closing(sqlite3.connect(self.path, timeout=60)) as database:
            yield database

    def _warn(self, why: object) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s keeps no vectors (%s); they are made again each time", self.path, why)


def _read(stored: object, dim: int) -> Vectors | None:
    """A vector as it was stored, shape (dim,); None for anything else."""
    if not isinstance(stored, bytes) or len(stored) != 4 * dim:
        return None
    vector = np.frombuffer(stored, np.float32)
    return vector if np.isfinite(vector).all() else None

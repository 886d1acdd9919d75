"""The response cache on disk: one SQLite file that several processes read and write at once."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from fieldscope.cache.store import Entry, Share, StoreStats
from fieldscope.core.errors import CacheError
from fieldscope.core.private import private_file, private_folder

APPLICATION_ID = 0x46534350
"""Marks a SQLite file as ours ("FSCP"), so that another program's database is refused and never written to."""

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE entries (
    key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    response TEXT NOT NULL,
    provenance TEXT NOT NULL
) WITHOUT ROWID
"""

_SIZE = " + ".join(f"length(CAST({column} AS BLOB))" for column in ("key", "request", "response", "provenance"))
_MODEL, _ASKED_AT = "json_extract(provenance, '$.model')", "json_extract(provenance, '$.asked_at')"
_SHARE = f"count(*), coalesce(sum({_SIZE}), 0), min({_ASKED_AT}), max({_ASKED_AT})"
_CHOSEN = f"coalesce({_ASKED_AT}, '') < :before AND (:model IS NULL OR substr({_MODEL}, 1, length(:model)) = :model)"
_BATCH = 1000  # entries that are read or written at once

_ADVICE = {
    "readonly": "make the file and its folder writable, or only read it with --cache replay",
    "full": "free some space and rerun the command; answers so far are kept",
    "locked": "another process keeps it locked; wait for it to end, or end it",
    "": "check the path and its permissions, and that the disk is not full",
}
"""What to do about an error of SQLite, by a word of its message; the last is for any other."""


class SqliteStore:
    """A `CacheStore` in one SQLite file with a write-ahead log.

    Readers never wait for a writer, and writers wait for each other up to `busy_timeout` seconds. `put` commits with
    `synchronous=NORMAL`: the entry is then in the log file, handed to the operating system, so no way of killing the
    process can lose it or leave half of it. (A power cut may take the last entries with it, but never damages the
    file; waiting for the disk at each entry would guard against that alone, and cost milliseconds an answer.)

    Two connections serve all threads of a process, each behind a lock: one reads, one writes, so that a thread that
    waits for its turn to write keeps no reader waiting. A file on a read-only disk can be read. Do not carry a store
    across `fork`.
    """

    def __init__(self, path: Path | str, busy_timeout: float = 30.0) -> None:
        self.path = Path(path)
        self._busy_timeout = busy_timeout
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            if not self.path.parent.is_dir():
                private_folder(self.path.parent)
        except OSError as error:
            raise CacheError(
                f"can't create the cache's folder {self.path.parent}: {error.strerror}; choose another folder"
            ) from error
        self._read_only = self.path.is_file() and not all(
            os.access(path, os.W_OK) for path in (self.path, self.path.parent)
        )
        if not self._read_only:
            with suppress(OSError):  # SQLite says what is wrong
                private_file(self.path)
        self._connection = self._open()
        try:
            with self._reporting():
                if self._read_only:
                    self._check_header()
                else:
                    self._prepare()
            self._reader = self._open()
        except BaseException:
            self._connection.close()
            raise

    def get(self, key: str) -> Entry | None:
        query = "SELECT key, request, response, provenance FROM entries WHERE key = ?"
        with self._read_lock, self._reporting():
            row = self._reader.execute(query, (key,)).fetchone()
        return None if row is None else Entry(*row)

    def put(self, entry: Entry, replace: bool = False) -> None:
        self.put_all([entry], replace)

    def put_all(self, entries: Iterable[Entry], replace: bool = False) -> int:
        """Commit many entries, a batch in one transaction, and say how many were written. The first one of a key
        stays, unless `replace` asks for the new one."""
        statement = f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO entries VALUES (?, ?, ?, ?)"
        waiting, written = iter(entries), 0
        while batch := list(islice(waiting, _BATCH)):
            rows = [(entry.key, entry.request, entry.response, entry.provenance) for entry in batch]
            with self._lock, self._reporting(), self._transaction():
                written += self._connection.executemany(statement, rows).rowcount
        return written

    def entries(self) -> Iterator[Entry]:
        """Every entry, in the order of the keys; others may read and write meanwhile."""
        query = "SELECT key, request, response, provenance FROM entries WHERE key > ? ORDER BY key LIMIT ?"
        last = ""
        while True:
            with self._read_lock, self._reporting():
                rows = self._reader.execute(query, (last, _BATCH)).fetchall()
            if not rows:
                return
            yield from (Entry(*row) for row in rows)
            last = rows[-1][0]

    def stats(self) -> StoreStats:
        with self._read_lock, self._reporting():
            rows = self._reader.execute(f"SELECT {_MODEL}, {_SHARE} FROM entries GROUP BY 1").fetchall()
        return StoreStats(self._size(), {model: Share(*share) for model, *share in rows})

    def share(self, before: str, model: str | None = None) -> Share:
        """How much was asked before a time (ISO 8601, UTC) of the models whose identity begins with `model` (of all,
        where None). An entry without a date counts as old."""
        with self._read_lock, self._reporting():
            query = f"SELECT {_SHARE} FROM entries WHERE {_CHOSEN}"
            return Share(*self._reader.execute(query, {"before": before, "model": model}).fetchone())

    def remove_share(self, before: str, model: str | None = None) -> int:
        """Remove what `share` counts and return the number of entries."""
        with self._lock, self._reporting():
            statement = f"DELETE FROM entries WHERE {_CHOSEN}"
            return self._connection.execute(statement, {"before": before, "model": model}).rowcount

    def remove(self, keys: Iterable[str]) -> int:
        """Remove the entries of these keys and return their number."""
        with self._lock, self._reporting(), self._transaction():
            removed = self._connection.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in keys))
            return removed.rowcount

    def compact(self) -> int:
        """Free the disk space of removed entries and return the number of bytes. Waits for other processes."""
        before = self._size()
        with self._lock, self._reporting():
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return max(0, before - self._size())

    def faults(self) -> list[str]:
        """The faults that SQLite finds in the file; none if it is sound."""
        with self._read_lock, self._reporting():
            rows = self._reader.execute("PRAGMA integrity_check(20)").fetchall()
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def close(self) -> None:
        with self._lock, self._read_lock, self._reporting():
            self._reader.close()
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        """A connection. On a read-only disk SQLite can't lay out the files beside a log, and reads without them where
        the address says that the file does not change."""
        address = self.path.absolute().as_uri()
        with self._reporting():
            if not self._read_only:
                return self._connected(str(self.path))
            try:
                return self._connected(f"{address}?mode=ro")
            except sqlite3.OperationalError:
                return self._connected(f"{address}?mode=ro&immutable=1")

    def _connected(self, address: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False, uri=self._read_only
        )
        try:
            if self._read_only:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # only this opens the file
        except BaseException:
            connection.close()
            raise
        return connection

    def _size(self) -> int:
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself has rolled back where the disk is full
                self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        """Refuse a file that isn't ours, before anything is written to it; lay out a new one."""
        self._connection.execute("BEGIN")  # so that the parts of the header are of one moment
        laid_out = self._check_header()
        self._connection.execute("COMMIT")
        self._write_ahead()
        if laid_out:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        if not self._check_header():  # another process may have been faster
            self._connection.execute(_SCHEMA)
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute("COMMIT")

    def _check_header(self) -> bool:
        """True for a cache of this version, False for an empty file. Raises `CacheError` for any other."""
        application = self._pragma("application_id")
        version = self._pragma("user_version")
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application == 0 and version == 0 and tables == 0:
            return False
        if application != APPLICATION_ID:
            raise CacheError(f"{self.path} is another program's database: name a different cache file")
        if version != SCHEMA_VERSION:
            raise CacheError(
                f"{self.path} has cache format {version}, this Fieldscope reads {SCHEMA_VERSION}: "
                "name a different cache file, or use the Fieldscope that wrote it"
            )
        return True

    def _write_ahead(self) -> None:
        """Turn on the write-ahead log. SQLite itself does not wait here for another process that writes."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what sqlite3 raises into one line that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            word = next(word for word in _ADVICE if word in str(error))
            raise CacheError(f"can't use the cache {self.path}: {error}: {_ADVICE[word]}") from error
        except sqlite3.ProgrammingError as error:
            raise CacheError(f"the cache {self.path} is closed: {error}; open it again") from error
        except sqlite3.DatabaseError as error:
            raise CacheError(
                f"the cache {self.path} is damaged or no cache at all ({error}): move it away or name another file"
            ) from error


def open_sqlite(argument: str) -> SqliteStore:
    """The store "sqlite"; its argument is the path of its file."""
    return SqliteStore(Path(argument))

"""Jobs on disk: their calls, replies and events, each committed before it is reported."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args
from uuid import uuid4

from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.private import private_file, private_folder
from fieldscope.service.server.api.events import Event

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
CallState = Literal["waiting", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE TABLE IF NOT EXISTS calls (
    job INTEGER NOT NULL REFERENCES jobs(number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    custom_id TEXT,
    url TEXT NOT NULL,
    body TEXT,
    state TEXT NOT NULL,
    reply TEXT,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    job INTEGER NOT NULL REFERENCES jobs(number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    call INTEGER,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_JOB = """
SELECT j.id, j.state, j.created, j.started, j.ended, count(c.number),
       coalesce(sum(c.state = 'done'), 0), coalesce(sum(c.state = 'failed'), 0)
FROM jobs j LEFT JOIN calls c ON c.job = j.number
"""
_OVER = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class NewCall:
    """A call of a job: the endpoint, the body (JSON), and the client's own name for it."""

    url: str
    body: str
    custom_id: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as it stands. Times are seconds since 1970; `done` and `failed` count calls."""

    id: str
    state: JobState
    created: float
    started: float | None
    ended: float | None
    calls: int
    done: int
    failed: int

    @property
    def over(self) -> bool:
        return self.state in _OVER


@dataclass(frozen=True)
class StoredCall:
    """A call as it stands; the first is number 0. `body` (JSON) is kept until the call has its `reply` (JSON)."""

    number: int
    url: str
    custom_id: str | None
    state: CallState
    body: str | None
    reply: str | None


class JobStore:
    """All jobs in one SQLite file with a write-ahead log. Once a method has returned, its change survives `kill -9`.

    Of jobs that are over the newest `keep` stay, for `keep_seconds`, while the file has at most `max_bytes`. Raises
    `ConfigError` if the file can't be used, or another service uses it.
    """

    def __init__(
        self, path: Path, *, keep: int = 1000, keep_seconds: float = 7 * 86_400.0, max_bytes: int = 2_000_000_000
    ) -> None:
        self._keep = keep
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._claim = _claim(path.with_suffix(".lock"))
        try:
            private_file(path)
            self._connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")  # as the response cache: no kill loses a commit
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self._claim.close()
            raise ConfigError(f"can't keep jobs in {path} ({error}); move that file away") from error

    def add(self, calls: Sequence[NewCall]) -> Job:
        """Store a new job; its first event is `waiting`."""
        job_id = f"job-{uuid4().hex}"
        with self._transaction() as db:
            number = db.execute(
                "INSERT INTO jobs (id, state, created) VALUES (?, 'waiting', ?)", (job_id, time.time())
            ).lastrowid
            db.executemany(
                "INSERT INTO calls (job, number, custom_id, url, body, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
                [(number, at, call.custom_id, call.url, call.body) for at, call in enumerate(calls)],
            )
            self._insert_event(job_id, "waiting", {"calls": len(calls)})
        self._prune()
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        """The job of this id. Raises `KeyError` if there is none."""
        with self._reading() as db:
            row = db.execute(f"{_JOB} WHERE j.id = ? GROUP BY j.number", (job_id,)).fetchone()
        if row is None:
            raise KeyError(job_id)
        return Job(*row)

    def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs, newest first."""
        with self._reading() as db:
            rows = db.execute(f"{_JOB} GROUP BY j.number ORDER BY j.number DESC LIMIT ?", (limit,)).fetchall()
        return [Job(*row) for row in rows]

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        counts: dict[JobState, int] = dict.fromkeys(get_args(JobState), 0)
        with self._reading() as db:
            counts.update(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return counts

    def unfinished(self) -> list[str]:
        """The ids of the jobs that are not over, oldest first."""
        with self._reading() as db:
            rows = db.execute("SELECT id FROM jobs WHERE state NOT IN (?, ?, ?) ORDER BY number", _OVER).fetchall()
        return [job_id for (job_id,) in rows]

    def calls(self, job_id: str) -> list[StoredCall]:
        """A job's calls, in order, without their bodies."""
        return self._calls(job_id, "NULL", "1")

    def waiting_calls(self, job_id: str) -> list[StoredCall]:
        """A job's calls without a reply, in order."""
        return self._calls(job_id, "c.body", "c.state = 'waiting'")

    def events(self, job_id: str, after: int = 0, limit: int = 200) -> list[Event]:
        """At most `limit` events after number `after`."""
        return self._events("j.id = ? AND e.number > ?", job_id, after, limit)

    def call_events(self, job_id: str, call: int) -> list[Event]:
        """Every event of one call so far."""
        return self._events("j.id = ? AND e.call = ?", job_id, call, -1)

    def begin(self, job_id: str) -> None:
        """Mark a job as at work, for the first time (event `started`) or again (`resumed`)."""
        with self._transaction() as db:
            (started,) = db.execute("SELECT started FROM jobs WHERE id = ?", (job_id,)).fetchone()
            db.execute(
                "UPDATE jobs SET state = 'running', started = coalesce(started, ?) WHERE id = ?", (time.time(), job_id)
            )
            self._insert_event(job_id, "started" if started is None else "resumed", {})

    def add_event(self, job_id: str, call: int, kind: str, data: Mapping[str, Any]) -> None:
        """Store an event of a call. A job that is over gets no further events, here and below."""
        with self._transaction():
            self._insert_event(job_id, kind, data, call)

    def reply(self, job_id: str, call: int, state: Literal["done", "failed"], reply: Mapping[str, Any]) -> None:
        """Store a call's reply, or its error (event `result` or `failed`), and delete its body."""
        kind = "result" if state == "done" else "failed"
        with self._transaction() as db:
            db.execute(
                "UPDATE calls SET state = ?, reply = ?, body = NULL "
                "WHERE number = ? AND job = (SELECT number FROM jobs WHERE id = ? AND ended IS NULL)",
                (state, json.dumps(reply, ensure_ascii=False), call, job_id),
            )
            self._insert_event(job_id, kind, reply, call)

    def end(self, job_id: str, state: Literal["done", "failed", "cancelled"]) -> None:
        """End a job that is not over (event `done`, `cancelled`, or `failed` if no call has a reply)."""
        with self._transaction() as db:
            job = self.job(job_id)
            self._insert_event(job_id, state, {"done": job.done, "failed": job.failed, "calls": job.calls})
            db.execute(
                "UPDATE jobs SET state = ?, ended = ? WHERE id = ? AND ended IS NULL", (state, time.time(), job_id)
            )
            db.execute("UPDATE calls SET body = NULL WHERE job = (SELECT number FROM jobs WHERE id = ?)", (job_id,))
        self._prune()

    def remove(self, job_id: str) -> None:
        """Delete a job with its calls and events."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def hand_back(self, job_id: str) -> None:
        """Let a job at work wait again, for the next service that opens the store."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET state = 'waiting' WHERE id = ? AND state = 'running'", (job_id,))

    def used_bytes(self) -> int:
        """The bytes that the file uses."""
        with self._reading() as db:
            sizes = [
                db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            ]
        return int((sizes[0] - sizes[1]) * sizes[2])

    def close(self) -> None:
        """Release the file for other services."""
        with self._lock:
            self._connection.close()
        self._claim.close()

    def _calls(self, job_id: str, body: str, where: str) -> list[StoredCall]:
        with self._reading() as db:
            rows = db.execute(
                f"SELECT c.number, c.url, c.custom_id, c.state, {body}, c.reply FROM calls c "
                f"JOIN jobs j ON j.number = c.job WHERE j.id = ? AND {where} ORDER BY c.number",
                (job_id,),
            ).fetchall()
        return [StoredCall(*row) for row in rows]

    def _events(self, where: str, job_id: str, number: int, limit: int) -> list[Event]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT kind, data, e.number FROM events e JOIN jobs j ON j.number = e.job "
                f"WHERE {where} ORDER BY e.number LIMIT ?",
                (job_id, number, limit),
            ).fetchall()
        return [Event(*row) for row in rows]

    def _insert_event(self, job_id: str, kind: str, data: Mapping[str, Any], call: int | None = None) -> None:
        data = data if call is None else {"call": call, **data}
        self._connection.execute(
            "INSERT INTO events SELECT j.number, "
            "1 + coalesce((SELECT max(number) FROM events WHERE job = j.number), 0), ?, ?, ? FROM jobs j "
            "WHERE j.id = ? AND j.ended IS NULL",
            (call, kind, json.dumps(data, ensure_ascii=False), job_id),
        )

    def _prune(self) -> None:
        """Delete the oldest jobs that are over, until the rest is within the limits."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE ended < ?", (time.time() - self._keep_seconds,))
            db.execute(
                "DELETE FROM jobs WHERE number IN "
                "(SELECT number FROM jobs WHERE state IN (?, ?, ?) ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (*_OVER, self._keep),
            )
        while self.used_bytes() > self._max_bytes:
            with self._transaction() as db:
                removed = db.execute(
                    "DELETE FROM jobs WHERE number = (SELECT min(number) FROM jobs WHERE state IN (?, ?, ?))", _OVER
                ).rowcount
            if not removed:
                return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise FieldscopeError(
                f"the file of jobs can't be read or written ({error}). Check that the disk is not full"
            ) from error


def _claim(path: Path) -> IO[bytes]:
    """A lock that dies with the process."""
    try:
        private_folder(path.parent)
        private_file(path)
        file = path.open("ab")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}; check the folder and its permissions") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigError(
            f"another service uses the jobs in {path.parent}. Stop it, or give this one another folder with --data"
        ) from error
    except OSError:
        pass  # a file system without locks, where the user must not start two services on one folder
    return file

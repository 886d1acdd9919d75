"""Traces of served calls, found by their ids and opened by the viewer."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.private import private_file, private_folder
from fieldscope.service.server.api.errors import LOG, ApiError
from fieldscope.service.server.api.servedrun import ServedRun, Setting

MAX_BYTES = 2_000_000_000
MAX_DAYS = 30
_WAITING = 512  # traces in memory
_OPEN = 16  # folders that are written at once
_PAUSE = 0.25  # seconds, so that writing does not delay the reply
_PATIENCE = 10.0  # seconds that a reader waits for a trace to be written
_INDEX = """
CREATE TABLE IF NOT EXISTS traces (
    trace_id TEXT PRIMARY KEY, folder TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID
"""


class TraceStore:
    """Results below `folder`, by day and strategy, at most `max_bytes` and for `max_days`; the oldest are deleted
    first.

    `keep` gives a result to a thread that writes, so that no reply waits for the disk unless the thread is 512 results
    behind. `locator` says where the images of all results are. Raises `ConfigError` if the folder can't be written.
    """

    def __init__(
        self,
        folder: Path,
        locator: Mapping[str, Any] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_days: int = MAX_DAYS,
    ) -> None:
        self.folder = folder
        self._locator = locator
        self._max_bytes = max_bytes
        self._max_days = max_days
        self._written_since = 0
        self._open: OrderedDict[Path, ServedRun] = OrderedDict()
        self._pending: dict[str, RerankResult] = {}
        self._settled = threading.Condition()
        self._wanted = threading.Event()  # a reader waits for a trace in the queue
        self._queue: queue.Queue[tuple[RerankResult, Setting] | None] = queue.Queue(_WAITING)
        try:
            private_folder(folder)
            private_file(folder / "index.sqlite")
            with closing(self._index()) as index:
                index.execute("PRAGMA journal_mode = WAL")
                index.execute(_INDEX)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"can't write traces to {folder} ({error}). Name another folder with --data") from error
        self._writer = threading.Thread(target=self._write, name="traces", daemon=True)
        self._writer.start()

    def keep(self, result: RerankResult, setting: Setting) -> None:
        """Store a result under its query's id, which is the trace's id."""
        with self._settled:
            self._pending[result.query_id] = result
        self._queue.put((result, setting))

    def find(self, trace_id: str) -> RerankResult:
        """The trace of this id. Raises `ApiError` (404) for one that never was, or was deleted."""
        with self._settled:
            if result := self._pending.get(trace_id):
                return result
        folder, start, size = self._place(trace_id)
        try:
            with (self.folder / folder / "results.jsonl").open("rb") as stream:
                stream.seek(start)
                result = RerankResult.model_validate_json(stream.read(size))
        except (OSError, ValueError) as error:
            raise _unknown(trace_id) from error
        if result.query_id != trace_id:  # folders were moved
            raise _unknown(trace_id)
        return result

    def page(self, trace_id: str) -> str:
        """The address of a trace's page in a viewer of `folder`, once it is written. Raises `ApiError` (404)."""
        from fieldscope.service.viewer.addresses import query_page, slug

        self.settle(trace_id)
        return query_page(slug(self._place(trace_id)[0]), trace_id)

    def settle(self, trace_id: str) -> None:
        """Wait until a trace is on the disk, where it survives a kill."""
        with self._settled:
            self._wanted.set()
            self._settled.wait_for(lambda: trace_id not in self._pending, timeout=_PATIENCE)

    def close(self) -> None:
        """Write the remaining traces, and close the folders."""
        self._queue.put(None)
        self._wanted.set()
        self._writer.join()

    def _index(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "index.sqlite", timeout=30.0, isolation_level=None)
        connection.execute("PRAGMA synchronous = NORMAL")  # as the response cache: no kill loses a commit
        return connection

    def _place(self, trace_id: str) -> tuple[str, int, int]:
        try:
            with closing(self._index()) as index:
                row = index.execute("SELECT folder, start, size FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
        except (sqlite3.Error, UnicodeEncodeError):  # a lone surrogate is no id
            row = None
        if row is None:
            raise _unknown(trace_id)
        return row[0], row[1], row[2]

    def _write(self) -> None:
        """The thread's work: write the waiting traces, a folder at a time. If a batch can't be written, the error is
        logged, and its traces are lost; the service continues."""
        ended = False
        with closing(self._index()) as index:
            while not ended:
                batch = [self._queue.get()]
                self._wanted.wait(_PAUSE)
                self._wanted.clear()
                while len(batch) < _WAITING and not self._queue.empty():
                    batch.append(self._queue.get())
                work = [item for item in batch if item is not None]
                ended = len(work) < len(batch)
                try:
                    self._commit(work, index)
                except (OSError, sqlite3.Error, FieldscopeError) as error:
                    if index.in_transaction:
                        index.execute("ROLLBACK")
                    LOG.error("%d traces were lost: %s. Check that the disk is not full", len(work), error)
                with self._settled:
                    for result, _ in work:
                        self._pending.pop(result.query_id, None)
                    self._settled.notify_all()
            for run in self._open.values():
                run.close()

    def _commit(self, work: Sequence[tuple[RerankResult, Setting]], index: sqlite3.Connection) -> None:
        by_name: dict[str, tuple[Setting, list[RerankResult]]] = {}
        for result, setting in work:
            by_name.setdefault(setting.name, (setting, []))[1].append(result)
        for setting, results in by_name.values():
            run = self._run(setting, index)
            places = run.append([result.model_dump_json() for result in results])
            folder = run.path.relative_to(self.folder).as_posix()
            rows = [
                (result.query_id, folder, start, size) for result, (start, size) in zip(results, places, strict=True)
            ]
            self._written_since += sum(size for _, size in places)
            index.execute("BEGIN")
            index.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?)", rows)
            index.execute("COMMIT")
        if self._written_since > self._max_bytes // 20:
            self._prune(index)

    def _run(self, setting: Setting, index: sqlite3.Connection) -> ServedRun:
        """The folder for the next results of a setting."""
        day = self.folder / datetime.now(UTC).date().isoformat()
        key = day / setting.name
        run = self._open.get(key)
        if run is None or run.full:
            if run is not None:
                self._open.pop(key).close()
            self._prune(index)
            run = self._open[key] = ServedRun(day, setting, self._locator)
        self._open.move_to_end(key)
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)[1].close()
        return run

    def _prune(self, index: sqlite3.Connection) -> None:
        """Delete the oldest folders until the rest is within the limits; never one that is being written."""
        self._written_since = 0
        oldest = (datetime.now(UTC).date() - timedelta(days=self._max_days)).isoformat()
        runs = sorted(
            (path.parent for path in self.folder.glob("[0-9]*-[0-9]*-[0-9]*/*/results.jsonl")),
            key=lambda path: (path.parent.name, path.stat().st_mtime_ns),
        )
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in runs}
        total, busy = sum(sizes.values()), {run.path for run in self._open.values()}
        for path in runs:
            if path in busy:
                continue
            if total <= self._max_bytes and path.parent.name >= oldest:
                break
            shutil.rmtree(path)
            index.execute("DELETE FROM traces WHERE folder = ?", (path.relative_to(self.folder).as_posix(),))
            total -= sizes[path]
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _unknown(trace_id: str) -> ApiError:
    return ApiError(404, "unknown_trace", f"there is no trace {trace_id[:64]!r}; check its id. Old traces are deleted")

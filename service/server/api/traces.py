"""What led to each served ranking, kept so that a trace's id finds it again and the viewer opens it."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
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
_PAUSE = 0.25  # seconds, in which the reply goes out that would else share the interpreter with the writing
_PATIENCE = 10.0  # seconds until somebody who wants to see a trace is told that it is not there
_INDEX = """
CREATE TABLE IF NOT EXISTS traces (
    trace_id TEXT PRIMARY KEY, folder TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID
"""


class TraceStore:
    """Results below `folder`, by day and strategy, at most `max_bytes` of them and for `max_days`; the oldest go first.

    `keep` hands a result to a thread that writes, so that no reply waits for the disk; only where that has fallen 512
    behind it waits. `locator` says where the images of all results lie. Raises `ConfigError` where nothing can be
    written.
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
        self._wanted = threading.Event()  # somebody waits for what is being written
        self._queue: queue.Queue[tuple[RerankResult, Setting] | None] = queue.Queue(_WAITING)
        try:
            private_folder(folder)
            private_file(folder / "index.sqlite")
            with closing(self._index()) as index:
                index.execute("PRAGMA journal_mode = WAL")
                index.execute(_INDEX)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"can't keep traces in {folder} ({error}); name another folder") from error
        self._writer = threading.Thread(target=self._write, name="traces", daemon=True)
        self._writer.start()

    def keep(self, result: RerankResult, setting: Setting) -> None:
        """Keep a result under its query's id, which is the trace's."""
        with self._settled:
            self._pending[result.query_id] = result
        self._queue.put((result, setting))

    def find(self, trace_id: str) -> RerankResult:
        """Raises `ApiError` (404) for a trace that was never kept, or is gone by now."""
        with self._settled:
            if result := self._pending.get(trace_id):
                return result
        folder, start, size = self._place(trace_id)
        try:
            with (self.folder / folder / "results.jsonl").open("rb") as stream:
                stream.seek(start)
                found = RerankResult.model_validate_json(stream.read(size))
        except (OSError, ValueError) as error:
            raise _unknown(trace_id) from error
        if found.query_id != trace_id:  # somebody moved folders about
            raise _unknown(trace_id)
        return found

    def page(self, trace_id: str) -> str:
        """The address of its page below the root of a viewer of `folder`, once it is written. Raises `ApiError`
        (404)."""
        from fieldscope.service.viewer.addresses import query_page, slug

        self.settle(trace_id)
        return query_page(slug(self._place(trace_id)[0]), trace_id)

    def settle(self, trace_id: str) -> None:
        """Wait until a trace is on the disk, so that not even a kill loses it."""
        with self._settled:
            self._wanted.set()
            self._settled.wait_for(lambda: trace_id not in self._pending, timeout=_PATIENCE)

    def close(self) -> None:
        """Write what is waiting, and let go of the folders."""
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
                found = index.execute(
                    "SELECT folder, start, size FROM traces WHERE trace_id = ?", (trace_id,)
                ).fetchone()
        except (sqlite3.Error, UnicodeEncodeError):  # a lone surrogate is no id
            found = None
        if found is None:
            raise _unknown(trace_id)
        return found[0], found[1], found[2]

    def _write(self) -> None:
        """The thread's work: whatever is waiting, a folder at a time. A disk that can't take it is logged, once a
        batch, and the traces are gone; the service goes on."""
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
                    LOG.error("%d traces could not be kept: %s", len(work), error)
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
        """The folder that takes the next results of a setting."""
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
        """Remove the oldest folders until the rest is within the bounds; never one that is being written."""
        self._written_since = 0
        oldest = (datetime.now(UTC).date() - timedelta(days=self._max_days)).isoformat()
        runs = sorted(
            (path.parent for path in self.folder.glob("*/*/results.jsonl")),
            key=lambda path: (path.parent.name, path.stat().st_mtime_ns),
        )
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in runs}
        total, busy = sum(sizes.values()), {run.path for run in self._open.values()}
        for path in runs:
            if path in busy or not _is_day(path.parent.name):
                continue
            if total <= self._max_bytes and path.parent.name >= oldest:
                break
            shutil.rmtree(path)
            index.execute("DELETE FROM traces WHERE folder = ?", (path.relative_to(self.folder).as_posix(),))
            total -= sizes[path]
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _is_day(name: str) -> bool:
    try:
        date.fromisoformat(name)
    except ValueError:
        return False
    return True


def _unknown(trace_id: str) -> ApiError:
    return ApiError(404, "unknown_trace", f"there is no trace {trace_id[:64]!r}; the oldest are removed by and by")

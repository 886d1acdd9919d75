"""Collections opened again while the service runs: new images, a new index, new metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.paths import without_folders
from fieldscope.retrieval.manifest import MANIFEST, is_index
from fieldscope.service.metadata.store import NAME as METADATA
from fieldscope.service.server.api.collections import ServedCollection
from fieldscope.service.server.api.errors import LOG, ApiError
from fieldscope.service.wiring.feedback import Silent, listening

if TYPE_CHECKING:
    from pathlib import Path

    from fieldscope.retrieval.progress import Report

_Stamp = tuple[tuple[int, int], ...]
State = Literal["never", "working", "done", "failed"]


@dataclass
class Refresh:
    """The last refresh of a collection. `done` of `total` images are read while it works; `notes` say what was skipped
    and how the metadata was joined; `error` is why it failed, and then the collection stays as it was."""

    state: State = "never"
    done: int = 0
    total: int = 0
    notes: Sequence[str] = ()
    error: str | None = None


class Refreshing:
    """Opens collections again, one refresh of each at a time. `reopen` does the work, in a thread; `replace` puts the
    result in the place of the old collection, between two calls of the event loop."""

    def __init__(
        self,
        reopen: Callable[[str], ServedCollection],
        replace: Callable[[ServedCollection], None],
        folders: Callable[[str], Path | None],
    ) -> None:
        self._reopen = reopen
        self._replace = replace
        self._folder = folders
        self._last: dict[str, Refresh] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, _Stamp] = {}
        self._closing = False

    def last(self, name: str) -> Refresh:
        """The collection's last refresh."""
        return self._last.get(name, Refresh())

    def start(self, name: str) -> Refresh:
        """Begin a refresh, unless one is at work. Raises `ApiError` (409) for FieldNotes, which never changes."""
        if self._folder(name) is None:
            raise ApiError(
                409,
                "fixed_collection",
                f"collection {name!r} never changes; add a folder of your own with --collection",
            )
        if name not in self._tasks:
            self._last[name] = Refresh("working")
            self._tasks[name] = asyncio.create_task(self._work(name, self._last[name]))
        return self._last[name]

    async def wait(self, name: str) -> Refresh:
        """The collection's last refresh, once it is over."""
        if (task := self._tasks.get(name)) is not None:
            await asyncio.shield(task)
        return self.last(name)

    async def follow_index(self, name: str) -> None:
        """Refresh a collection that is an index, if `fieldscope index` has written it since it was opened."""
        folder = self._folder(name)
        if folder is None or not is_index(folder):
            return
        stamp = _stamp(folder)
        if self._seen.setdefault(name, stamp) != stamp:
            self._seen[name] = stamp
            self.start(name)
            await self.wait(name)

    def remember_indexes(self, names: Sequence[str]) -> None:
        """Take the indexes of these collections as they are now for those that are open."""
        folders = {name: folder for name in names if (folder := self._folder(name)) is not None}
        self._seen = {name: _stamp(folder) for name, folder in folders.items() if is_index(folder)}

    async def close(self) -> None:
        """End the refreshes at work; what they encoded so far is kept."""
        self._closing = True
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _work(self, name: str, refresh: Refresh) -> None:
        notes = _Notes(refresh, lambda: self._closing)

        def reopened() -> ServedCollection:
            with listening(notes):
                return self._reopen(name)

        try:
            self._replace(await asyncio.to_thread(reopened))
            refresh.state = "done"
        except FieldscopeError as error:
            refresh.state, refresh.error = "failed", without_folders(str(error))
            LOG.warning("collection %s could not be refreshed: %s", name, error)
        except Exception:  # noqa: BLE001 - searches go on over the collection as it was
            refresh.state, refresh.error = "failed", "an unexpected error happened; see the service's log"
            LOG.exception("collection %s could not be refreshed", name)
        finally:
            refresh.notes = tuple(notes.lines)
            del self._tasks[name]


class _Notes(Silent):
    """What is said while a collection is opened, for its refresh."""

    def __init__(self, refresh: Refresh, closing: Callable[[], bool]) -> None:
        self.lines: list[str] = []
        self._refresh = refresh
        self._closing = closing

    def warn(self, message: str) -> None:
        self.lines.append(message)

    def note(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, title: str) -> AbstractContextManager[Report]:
        return self._progress()

    @contextmanager
    def _progress(self) -> Iterator[Report]:
        def report(done: int, total: int) -> None:
            self._refresh.done, self._refresh.total = done, total
            if self._closing():
                raise ConfigError("the service is shutting down; refresh the collection after its restart")

        yield report


def _stamp(folder: Path) -> _Stamp:
    """Changes when the index in a folder does, or its metadata."""
    stamps = []
    for name in (MANIFEST, METADATA):
        try:
            status = (folder / name).stat()
        except OSError:
            stamps.append((0, 0))
        else:
            stamps.append((status.st_size, status.st_mtime_ns))
    return tuple(stamps)

"""The one writer of a store: what waits to be kept is committed together, in a thread, while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fieldscope.cache.store import CacheStore, Entry


class _Waiting(NamedTuple):
    entry: Entry
    replace: bool
    committed: asyncio.Future[None]


class GroupWriter:
    """Commits entries to a store, for one event loop.

    Entries that come while a commit is on its way wait for the next one, and go into it together. So a store has one
    writer, however many answers arrive, and another process that keeps the store locked keeps those waiting who have
    an answer to keep, and nothing else.
    """

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")

    async def put(self, entry: Entry, replace: bool = False) -> None:
        """Return once the entry is committed. Raises what `CacheStore.put` raises."""
        committed = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry, replace, committed))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting())
        await committed

    async def aclose(self) -> None:
        """Wait for what is being committed. The store stays open."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
        self._thread.shutdown(wait=False)

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._commit(group)
        finally:
            self._committing = None

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        """Commit a group, and tell each of those who wait how it went."""
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, group)
        await asyncio.wait([writing])
        error = writing.exception()
        for _, _, committed in group:
            if committed.done():  # whoever waited was cancelled
                continue
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

    def _write(self, group: Sequence[_Waiting]) -> None:
        for replace in (False, True):
            if entries := [waiting.entry for waiting in group if waiting.replace == replace]:
                self._store.put_all(entries, replace)

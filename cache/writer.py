"""A store for an event loop: entries that wait are committed together in a thread, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

from fieldscope.cache.store import AnyStore, AsyncCacheStore, CacheStore, Entry, StoreStats, is_async


class _Waiting(NamedTuple):
    entry: Entry
    replace: bool
    committed: asyncio.Future[None]


def as_async(store: AnyStore) -> AsyncCacheStore:
    """The store itself where it is asynchronous, else a `GroupWriter` over it."""
    return store if is_async(store) else GroupWriter(cast(CacheStore, store))


class GroupWriter:
    """A `CacheStore` as an `AsyncCacheStore`, for one event loop.

    Entries that arrive during a commit wait for the next one and go into it together. So the store has one writer,
    however many answers arrive, and a lock of another process delays only calls that have an answer to keep.
    """

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")

    async def get(self, key: str) -> Entry | None:
        """The entry of this key, read at once: a `CacheStore` never waits to read."""
        return self._store.get(key)

    async def stats(self) -> StoreStats:
        """How much the store holds."""
        return self._store.stats()

    async def put(self, entry: Entry, replace: bool = False) -> None:
        """Return once the entry is committed. Raises what `CacheStore.put` raises."""
        committed = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry, replace, committed))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting())
        await committed

    async def aclose(self) -> None:
        """Wait for the running commit. The store stays open."""
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
        """Commit a group and pass the outcome to each caller."""
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, group)
        await asyncio.wait([writing])
        error = writing.exception()
        for _, _, committed in group:
            if committed.done():  # the caller was cancelled
                continue
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

    def _write(self, group: Sequence[_Waiting]) -> None:
        for replace in (False, True):
            if entries := [waiting.entry for waiting in group if waiting.replace == replace]:
                self._store.put_all(entries, replace)

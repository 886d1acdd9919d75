"""Where a cache keeps its entries: what a store must do, the registered stores, and one in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeGuard

from fieldscope.core.registry import Registry


@dataclass(frozen=True)
class Entry:
    """One remembered call: canonical JSON of request and response, and where they came from.

    `provenance` is a JSON object that names at least the `model` that answered. It may say when (`asked_at`, in UTC),
    the SHA-256 of the response (`response_sha256`), and of an entry that was recorded without what its server tells of
    the model (`fieldscope.agent.lmm.identity`), which identity it was since found under (`served_by`) or copied from
    (`recorded_as`).
    """

    key: str
    request: str
    response: str
    provenance: str


@dataclass(frozen=True)
class Share:
    """A part of a store: number of entries, bytes of their texts, and when the oldest and the newest were asked (ISO
    8601, UTC; None where no entry says)."""

    entries: int = 0
    size_bytes: int = 0
    oldest: str | None = None
    newest: str | None = None


@dataclass(frozen=True)
class StoreStats:
    """How much a store holds: bytes on disk or in memory, and the share of each model."""

    size_bytes: int
    models: Mapping[str, Share]

    @property
    def entries(self) -> int:
        """The number of all entries."""
        return sum(share.entries for share in self.models.values())

    @property
    def by_model(self) -> dict[str, int]:
        """The number of entries of each model."""
        return {model: share.entries for model, share in self.models.items()}


class CacheStore(Protocol):
    """A map from key to entry. An entry that `put` returned from is committed: it survives `kill -9`.

    `get` may be called from an event loop, so it never waits for a writer, in this process or another. Whatever writes
    may wait, and is called in a thread (`fieldscope.cache.writer`). Every method raises `CacheError` where the store
    can't be read or written.
    """

    def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        ...

    def put(self, entry: Entry, replace: bool = False) -> None:
        """Commit an entry. The first one of a key stays, unless `replace` asks for the new one."""
        ...

    def put_all(self, entries: Iterable[Entry], replace: bool = False) -> int:
        """Commit many entries, as `put` does each of them, and say how many were written."""
        ...

    def stats(self) -> StoreStats:
        """How much there is; reads the whole store."""
        ...

    def close(self) -> None:
        """Close the store; everything that was committed is kept."""
        ...


class AsyncCacheStore(Protocol):
    """A `CacheStore` whose methods are coroutines, such as a client of a database server. It does its own waiting, so
    no thread is used."""

    async def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        ...

    async def put(self, entry: Entry, replace: bool = False) -> None:
        """Commit an entry. The first one of a key stays, unless `replace` asks for the new one."""
        ...

    async def stats(self) -> StoreStats:
        """How much the store holds."""
        ...

    async def aclose(self) -> None:
        """Close the store; everything that was committed is kept."""
        ...


AnyStore = CacheStore | AsyncCacheStore

STORES: Registry[Callable[[str], AnyStore]] = Registry("cache store", "fieldscope.stores")
"""Each opens a store from an argument, such as a file's path."""


def is_async(store: AnyStore) -> TypeGuard[AsyncCacheStore]:
    """Whether a store's methods are coroutines."""
    return iscoroutinefunction(store.get)


def open_memory(argument: str = "") -> MemoryStore:
    """The store "memory"; it ignores its argument."""
    return MemoryStore()


class MemoryStore:
    """A store that lives as long as the process, for tests and for runs that keep nothing."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, entry: Entry, replace: bool = False) -> None:
        if replace:
            self._entries[entry.key] = entry
        else:
            self._entries.setdefault(entry.key, entry)

    def put_all(self, entries: Iterable[Entry], replace: bool = False) -> int:
        written = 0
        for entry in entries:
            written += replace or entry.key not in self._entries
            self.put(entry, replace)
        return written

    def stats(self) -> StoreStats:
        by_model: dict[str, list[tuple[int, str | None]]] = {}
        for entry in self._entries.values():
            texts = (entry.key, entry.request, entry.response, entry.provenance)
            provenance: dict[str, Any] = json.loads(entry.provenance)
            size = sum(len(text.encode()) for text in texts)
            by_model.setdefault(provenance["model"], []).append((size, provenance.get("asked_at")))
        models = {}
        for model, entries in by_model.items():
            dates = [date for _, date in entries if date]
            oldest, newest = min(dates, default=None), max(dates, default=None)
            models[model] = Share(len(entries), sum(size for size, _ in entries), oldest, newest)
        return StoreStats(sum(share.size_bytes for share in models.values()), models)

    def close(self) -> None:
        self._entries.clear()

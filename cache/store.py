"""The seam between a cache and where it keeps its entries, and a store in memory."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One remembered call: canonical JSON of request and response, and where they came from.

    `provenance` is a JSON object that names at least the `model` that answered.
    """

    key: str
    request: str
    response: str
    provenance: str


@dataclass(frozen=True)
class StoreStats:
    """How much a store holds: number of entries, bytes on disk or in memory, and entries per model."""

    entries: int
    size_bytes: int
    by_model: dict[str, int]


class CacheStore(Protocol):
    """A map from key to entry. An entry that `put` returned from is committed: it survives `kill -9`.

    Every method raises `CacheError` where the store can't be read or written.
    """

    def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        ...

    def put(self, entry: Entry, replace: bool = False) -> None:
        """Commit an entry. The first one of a key stays, unless `replace` asks for the new one."""
        ...

    def stats(self) -> StoreStats:
        """How much there is; reads the whole store."""
        ...

    def close(self) -> None:
        """Let go of the store; nothing that was committed is lost."""
        ...


class MemoryStore:
    """A store that lives as long as the process: for tests, and for runs that shall leave nothing behind."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, entry: Entry, replace: bool = False) -> None:
        if replace:
            self._entries[entry.key] = entry
        else:
            self._entries.setdefault(entry.key, entry)

    def stats(self) -> StoreStats:
        entries = self._entries.values()
        size = sum(len(text.encode()) for e in entries for text in (e.key, e.request, e.response, e.provenance))
        models = Counter(json.loads(e.provenance)["model"] for e in entries)
        return StoreStats(entries=len(entries), size_bytes=size, by_model=dict(models))

    def close(self) -> None:
        self._entries.clear()

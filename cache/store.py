"""The seam between a cache and where it keeps its entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One remembered call: canonical JSON of request and response, and where they came from."""

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
    """A map from key to entry. An entry that `put` returned from is committed: it survives `kill -9`."""

    def get(self, key: str) -> Entry | None: ...

    def put(self, entry: Entry) -> None: ...

    def stats(self) -> StoreStats: ...

    def close(self) -> None: ...

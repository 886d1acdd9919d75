"""One response cache for all workers of a cluster: it lies where the work was started, and they reach it there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fieldscope.service.wiring.cluster import Cluster, Hosted, shared
from fieldscope.service.wiring.models import open_store
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.cache.store import AsyncCacheStore, Entry, StoreStats


class StoreHost:
    """The store that settings lead to, opened with the first call. Serves one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open_for_good = AsyncExitStack()
        self._store: AsyncCacheStore | None = None

    async def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        return await (await self._opened()).get(key)

    async def put(self, entry: Entry, replace: bool = False) -> None:
        """Commit an entry."""
        await (await self._opened()).put(entry, replace)

    async def stats(self) -> StoreStats:
        """How much the store holds."""
        return await (await self._opened()).stats()

    async def _opened(self) -> AsyncCacheStore:
        if self._store is None:
            self._store = await self._open_for_good.enter_async_context(open_store(self._settings))
        return self._store


@dataclass(frozen=True)
class ClusterStore:
    """An `AsyncCacheStore` that lies in another process of the cluster."""

    host: Hosted

    async def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        return cast("Entry | None", await self.host.call("get", key))

    async def put(self, entry: Entry, replace: bool = False) -> None:
        """Commit an entry. The first one of a key stays, unless `replace` asks for the new one."""
        await self.host.call("put", entry, replace)

    async def stats(self) -> StoreStats:
        """How much the store holds."""
        return cast("StoreStats", await self.host.call("stats"))

    async def aclose(self) -> None:
        """The store stays open as long as the cluster's work lasts."""


def open_cluster_store(name: str) -> ClusterStore:
    """The store "ray": the one that is shared under a name. Raises `ConfigError` where this is no worker."""
    return ClusterStore(shared(name))


@contextmanager
def on_workers(cluster: Cluster, settings: Settings) -> Iterator[Settings]:
    """The settings for a cluster's workers: over this process's response cache, and all together with as many calls in
    flight as the settings allow."""
    with cluster.sharing(StoreHost, settings) as name:
        calls = max(settings.concurrency // cluster.workers, 1)
        yield replace(settings, cache_file=Path(f"ray:{name}"), concurrency=calls)

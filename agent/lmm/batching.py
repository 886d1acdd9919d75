"""Requests that arrive together, answered together in one worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Waiting(Generic[T, R]):
    item: T
    kind: Hashable
    group: Hashable
    future: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Gathers items from concurrent callers and hands them to `work`, a batch at a time, in one thread of its own.

    A batch holds the items of at most `largest` groups, all of the kind (as `kind` tells) of the one that waits
    longest. Items of one `group` share most of their cost; without `group` each item is on its own. `work` runs in the
    thread and returns a result or an exception for each item, in order. While it runs the next batch gathers; else a
    batch waits `window` seconds for company. Serves one event loop at a time.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        kind: Callable[[T], Hashable],
        largest: int,
        window: float = 0.005,
        group: Callable[[T], Hashable] = lambda item: object(),
    ) -> None:
        self._work = work
        self._kind = kind
        self._largest = largest
        self._window = window
        self._group = group
        self._waiting: list[_Waiting[T, R]] = []
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batcher")
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """The result for one item; raises the exception that `work` returned for it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, self._kind(item), self._group(item), future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await future

    async def aclose(self) -> None:
        """Let the running batch finish and end the thread; what still waits is cancelled."""
        for waiting in self._waiting:
            waiting.future.cancel()
        self._waiting.clear()
        if self._pump is not None and not self._pump.done():
            await self._pump
        self._worker.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if len(self._waiting) < self._largest:
                await asyncio.sleep(self._window)
            batch = self._take()
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(self._worker, self._work, [waiting.item for waiting in batch])
            except Exception as error:  # noqa: BLE001  whatever it is, its callers shall see it, not a lost thread
                results = [error] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.future.done():  # its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    waiting.future.set_exception(result)
                else:
                    waiting.future.set_result(result)

    def _take(self) -> list[_Waiting[T, R]]:
        """The longest waiting item and others of its kind, in order; what was cancelled meanwhile is dropped."""
        alive = [waiting for waiting in self._waiting if not waiting.future.done()]
        of_kind = [waiting for waiting in alive if waiting.kind == alive[0].kind]
        groups = set(islice(dict.fromkeys(waiting.group for waiting in of_kind), self._largest))
        batch = [waiting for waiting in of_kind if waiting.group in groups]
        taken = set(map(id, batch))
        self._waiting = [waiting for waiting in alive if id(waiting) not in taken]
        return batch

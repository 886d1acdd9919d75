"""How tests wait: for what happens, and never for time. A busy machine takes its time, and no test shall mind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

PATIENCE = 120.0
"""Seconds after which whatever a test waits for will never happen. It decides between a failure and a hang, only."""

_TURNS = 20

T = TypeVar("T")


class Crowd:
    """Counts who is inside at once. Whoever enters stays until `size` have been inside together, and some turns of the
    event loop longer, so that one too many would be seen."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside = self.most = 0
        self.complete = asyncio.Event()

    @asynccontextmanager
    async def join(self) -> AsyncIterator[None]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self.size:
            self.complete.set()
        try:
            await self.complete.wait()
            await turns()
            yield
        finally:
            self.inside -= 1


async def turns() -> None:
    """Give way to the other tasks, often enough that whatever could happen now has happened."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def until(happened: Callable[[], object]) -> None:
    """Give way to the other tasks until it has happened; for what sends no event."""
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0)


def released(work: Callable[[], T], release: Callable[[], object]) -> T:
    """The result of work that waits, in a thread, for something that is released once the work has begun."""
    begun = threading.Event()

    def begin() -> T:
        begun.set()
        return work()

    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(begin)
        assert begun.wait(PATIENCE)
        release()
        return result.result(PATIENCE)

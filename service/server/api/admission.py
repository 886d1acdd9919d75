"""Admission of calls: a number of them works at once, more wait in turn, and the rest is refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fieldscope.service.server.api.errors import ApiError

_REMEMBERED = 0.9  # of the mean duration, at each new one
_LONGEST_WAIT = 120  # seconds, in Retry-After


class Admission:
    """At most `at_work` calls at once, first come, first served, and `waiting` more that wait for a place.

    Serves one event loop. A caller that is cancelled, at work or waiting, gives its place to the next.
    """

    def __init__(self, at_work: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(at_work)
        self._most_at_work = at_work
        self._most_waiting = waiting
        self._closed = False
        self._seconds = 1.0
        self.at_work = 0
        """How many calls have a place."""
        self.waiting = 0
        """How many calls wait for one."""

    @asynccontextmanager
    async def place(self, patience: float) -> AsyncIterator[None]:
        """A place to work, waited for up to `patience` seconds.

        Raises `ApiError`: 429 at once where the queue is full, 504 where patience ends, 503 after `close`.
        """
        await self._acquire(patience)
        self.at_work += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds = _REMEMBERED * self._seconds + (1 - _REMEMBERED) * (time.monotonic() - began)
            self.at_work -= 1
            self._places.release()

    def close(self) -> None:
        """Refuse every new call and all that wait. Calls at work stay."""
        self._closed = True
        for _ in range(self.waiting):  # each of them sees that it is closed
            self._places.release()

    async def _acquire(self, patience: float) -> None:
        if self._places.locked() and self.waiting >= self._most_waiting and not self._closed:
            raise ApiError(
                429,
                "too_many_requests",
                f"{self.at_work} calls are at work and {self.waiting} wait; try again later",
                self._retry_after(),
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(patience):
                if not self._closed:
                    await self._places.acquire()
        except TimeoutError as error:
            raise ApiError(
                504, "deadline", "the time for this call ran out while it waited for its turn; try again later"
            ) from error
        finally:
            self.waiting -= 1
        if self._closed:
            raise ApiError(503, "shutting_down", "the service is shutting down; try again in a moment", 5)

    def _retry_after(self) -> int:
        """Seconds until half of the queue has moved on, at the pace of the calls so far."""
        rounds = self.waiting / (2 * self._most_at_work) + 1
        return min(max(math.ceil(rounds * self._seconds), 1), _LONGEST_WAIT)

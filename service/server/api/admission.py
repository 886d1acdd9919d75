"""Who may work now, who waits, and who is told to come back later."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
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
        self._places = at_work
        self._most_waiting = waiting
        self._at_work = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._seconds = 1.0

    @property
    def at_work(self) -> int:
        """How many calls have a place."""
        return self._at_work

    @property
    def waiting(self) -> int:
        """How many calls wait for one."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, patience: float) -> AsyncIterator[None]:
        """A place to work, waited for up to `patience` seconds.

        Raises `ApiError`: 429 at once where as many wait already as may, 504 where patience ends, 503 after `close`.
        """
        await self._enter(patience)
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds = _REMEMBERED * self._seconds + (1 - _REMEMBERED) * (time.monotonic() - began)
            self._leave()

    def close(self) -> None:
        """Let nobody in any more; who waits is told so. Who is at work stays."""
        self._closed = True
        for waiting in self._queue:
            if not waiting.done():
                waiting.set_exception(_closing())
        self._queue.clear()

    async def _enter(self, patience: float) -> None:
        if self._closed:
            raise _closing()
        if self._at_work < self._places:
            self._at_work += 1
            return
        if len(self._queue) >= self._most_waiting:
            raise ApiError(
                429,
                "too_many_requests",
                f"{self._at_work} calls are at work and {len(self._queue)} wait; try again later",
                self._retry_after(),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn  # whoever leaves hands the place over
        except TimeoutError as error:
            self._forget(turn)
            raise ApiError(504, "deadline", "the time for this call ran out while it waited for its turn") from error
        except BaseException:
            self._forget(turn)
            raise

    def _forget(self, turn: asyncio.Future[None]) -> None:
        """A waiting call that is no more; a place that was handed to it just now goes on to the next."""
        if turn in self._queue:
            self._queue.remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._leave()

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._at_work -= 1

    def _retry_after(self) -> int:
        """Seconds until the queue has moved on by half, as calls went so far."""
        rounds = len(self._queue) / (2 * self._places) + 1
        return min(max(math.ceil(rounds * self._seconds), 1), _LONGEST_WAIT)


def _closing() -> ApiError:
    return ApiError(503, "shutting_down", "the service is shutting down; try again in a moment", 5)

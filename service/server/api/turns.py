"""Turns: a call waits for its place, and ends in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from fieldscope.service.server.api.admission import Admission
from fieldscope.service.server.api.deadline import until
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.observer import Observer

T = TypeVar("T")

_OVERTIME = 15.0
"""Seconds after its deadline at which a call is given up, in case something other than the model delays it."""


class Turns:
    """Gives each call its turn in the queue of `admission`, and at most `max_seconds`. `observers` see both."""

    def __init__(self, admission: Admission, max_seconds: float, observers: Sequence[Observer]) -> None:
        self._admission = admission
        self._max_seconds = max_seconds
        self._observers = observers

    async def take(self, strategy: str, work: Callable[[float], Awaitable[T]]) -> T:
        """What the work under a strategy returns; it gets the reading of the monotonic clock at which the call ends.
        Raises `ApiError` where there is no place, and where time ran out."""
        with self._observed(strategy):
            return await self._admitted(work)

    async def _admitted(self, work: Callable[[float], Awaitable[T]]) -> T:
        """Work in turn, and within the time limit of a call, which begins with its arrival."""
        arrived = time.monotonic()
        ends = arrived + self._max_seconds
        async with self._admission.place(self._max_seconds):
            for observer in self._observers:
                observer.waited(time.monotonic() - arrived)
            with until(ends):
                try:
                    async with asyncio.timeout(ends - time.monotonic() + _OVERTIME):
                        return await work(ends)
                except TimeoutError as error:
                    raise ApiError(
                        504,
                        "deadline",
                        "time ran out before there was a ranking; try again, or ask fewer questions with a budget",
                    ) from error

    @contextmanager
    def _observed(self, strategy: str) -> Iterator[None]:
        with ExitStack() as around:
            for observer in self._observers:
                around.enter_context(observer.reranking(strategy))
            yield

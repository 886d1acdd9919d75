"""Deadlines of calls, enforced where the model is asked: no call waits for an answer past its deadline."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.core.errors import BudgetError, LMMConnectionError

_ends: ContextVar[float] = ContextVar("ends", default=math.inf)


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Let calls to the model in this block, and in tasks begun in it, end at this reading of the monotonic clock."""
    token = _ends.set(moment)
    try:
        yield
    finally:
        _ends.reset(token)


class PunctualLMM:
    """An LMM that keeps the deadline of `until`. A call that begins too late is refused, as by an empty budget; one
    that is not answered in time is unknown to its caller, while its answer still goes to the cache."""

    def __init__(self, lmm: LMM) -> None:
        self._lmm = lmm
        self._closes = math.inf

    @property
    def identity(self) -> str:
        return self._lmm.identity

    def close_at(self, moment: float) -> None:
        """Let every call end at this reading of the monotonic clock."""
        self._closes = moment

    async def generate(self, request: LMMRequest) -> LMMResponse:
        left = min(_ends.get(), self._closes) - time.monotonic()
        if left <= 0:
            raise BudgetError("the time for this call has passed; try again, or raise the limit max_seconds")
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                return await self._lmm.generate(request)
        except TimeoutError as error:
            raise LMMConnectionError(
                "the model did not answer before the call's deadline. Try again, or raise the limit max_seconds"
            ) from error

    async def aclose(self) -> None:
        """Leaves the model open; its opener closes it."""

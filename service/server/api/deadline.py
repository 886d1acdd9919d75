"""The end of a call's time, kept at the door to the model: nobody waits past it for an answer."""

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
    """Let the calls that are made inside, and in tasks begun inside, end at this reading of the monotonic clock."""
    token = _ends.set(moment)
    try:
        yield
    finally:
        _ends.reset(token)


class PunctualLMM:
    """An LMM that keeps `until`. A call that begins too late is refused, as by an empty budget; one that is not
    answered in time is unknown to whoever asked, while its answer still goes to the cache."""

    def __init__(self, lmm: LMM) -> None:
        self._lmm = lmm
        self._closes = math.inf

    @property
    def identity(self) -> str:
        return self._lmm.identity

    def close_at(self, moment: float) -> None:
        """Let every call, whoever's, end then."""
        self._closes = moment

    async def generate(self, request: LMMRequest) -> LMMResponse:
        left = min(_ends.get(), self._closes) - time.monotonic()
        if left <= 0:
            raise BudgetError("the time for this call has passed")
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                return await self._lmm.generate(request)
        except TimeoutError as error:
            raise LMMConnectionError("no answer came before the time for this call had passed") from error

    async def aclose(self) -> None:
        """The model belongs to whoever opened it."""

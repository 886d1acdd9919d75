"""Observers of the work: metrics, and spans where they are on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from fieldscope.service.server.api.errors import ApiError

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
    from fieldscope.agent.types import RerankResult


class Observer(Protocol):
    """Sees every rerank and every call to the model, but keeps no words and no images."""

    def asking(self, request: LMMRequest, model: str) -> AbstractContextManager[Callable[[LMMResponse], None]]:
        """Around one call that reaches the model of this identity; what it yields takes the response."""
        ...

    def reranking(self, strategy: str) -> AbstractContextManager[None]:
        """Around one rerank or search, from its arrival to its end or error."""
        ...

    def waited(self, seconds: float) -> None:
        """The current rerank begins its work, after this wait."""
        ...

    def ranked(self, result: RerankResult) -> None:
        """The questions of the current rerank, also where it fails because none was answered."""
        ...


class ObservedLMM:
    """A model whose calls an observer sees. It stands behind the cache, whose answers are no calls."""

    def __init__(self, lmm: LMM, observer: Observer) -> None:
        self._lmm = lmm
        self._observer = observer

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        with self._observer.asking(request, self.identity) as answered:
            response = await self._lmm.generate(request)
            answered(response)
        return response

    async def aclose(self) -> None:
        await self._lmm.aclose()


def error_kind(error: BaseException) -> str:
    """A name of an error's kind: the code that a client gets, else its class."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.code if isinstance(error, ApiError) else type(error).__name__

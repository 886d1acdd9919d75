"""Whoever watches the work and has no part in it: metrics, and telemetry where it is on."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from fieldscope.service.server.api.errors import ApiError

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.types import RerankResult


class Observer(Protocol):
    """Is told of every rerank and of every call to the model. It sees no words and no pictures."""

    def door(self, lmm: LMM) -> LMM:
        """The model, each call to which is seen. It stands behind the cache, whose answers are no calls."""
        ...

    def reranking(self, strategy: str) -> AbstractContextManager[None]:
        """Around one rerank or search, from before it has a place to work to its end or its error."""
        ...

    def waited(self, seconds: float) -> None:
        """The rerank around this has a place to work, after so long."""
        ...

    def ranked(self, result: RerankResult) -> None:
        """What the rerank around this asked, also where it fails because nothing was answered."""
        ...


def fault(error: BaseException) -> str:
    """A name of an error's kind: the code that a client gets, else its class."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.code if isinstance(error, ApiError) else type(error).__name__

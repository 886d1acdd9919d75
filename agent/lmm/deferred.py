"""An LMM that is known before it is loaded, and loaded for the first call that reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse


class DeferredLMM:
    """An `LMM` of a known identity, which `load` makes for the first request. Serves one event loop.

    `load` blocks, and raises `ConfigError` where the model can't be loaded.
    """

    def __init__(self, identity: str, load: Callable[[], LMM]) -> None:
        self._identity = identity
        self._load = load
        self._loading = asyncio.Lock()
        self._loaded: LMM | None = None

    @property
    def identity(self) -> str:
        return self._identity

    async def loaded(self) -> LMM:
        """The model itself, loaded once."""
        async with self._loading:
            if self._loaded is None:
                self._loaded = await asyncio.to_thread(self._load)
            return self._loaded

    async def generate(self, request: LMMRequest) -> LMMResponse:
        return await (await self.loaded()).generate(request)

    async def aclose(self) -> None:
        if self._loaded is not None:
            await self._loaded.aclose()

"""A model of whose calls some fail, to see what becomes of a ranking."""

from __future__ import annotations

import random
from collections import Counter

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.core.errors import LMMServerError

SHARE = 0.2
INJECTED = "this call was made to fail"


class Faulty:
    """An LMM of whose calls a share fails. Which ones is random, but always the same, in whatever order they come."""

    def __init__(self, lmm: LMM, share: float = SHARE, seed: int = 0) -> None:
        self._lmm = lmm
        self._share = share
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self.calls = 0
        self.failed = 0

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        key = request.key(self.identity)
        self._asked[key] += 1
        self.calls += 1
        if random.Random(f"{self._seed} {key} {self._asked[key]}").random() < self._share:
            self.failed += 1
            raise LMMServerError(INJECTED)
        return await self._lmm.generate(request)

    async def aclose(self) -> None:
        await self._lmm.aclose()

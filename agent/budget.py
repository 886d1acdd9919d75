"""Budgets: one account of calls, tokens and time for the calls to the model.

Once an account is empty every call is refused at once, before the model is asked, so a stage that runs out leaves
"not asked" behind and the ranking stands on what is known. An answer from the cache counts like one from the model:
a budget decides what is asked, and a resumed run must ask the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.core.errors import BudgetError

Outcome = TypeVar("Outcome")

Kind = tuple[int, int]
"""Calls of about the same size: how many images a request shows, and how many tokens may be answered."""


@dataclass(frozen=True)
class Budget:
    """The most that may be spent: calls, tokens (read and written), seconds. None is no limit.

    A deadline stops new calls, and those in flight are given up.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    deadline: float | None = None


class Account:
    """What was spent of a budget, by one query or, as its `parent`, by a whole run. Serves one event loop.

    Calls are booked when they begin, tokens when they are known. Until then a call in flight stands for as many as
    the dearest of its kind took so far, and the first of a kind goes alone. A call that might not be affordable waits
    for those in flight; so an account is overdrawn by no more than what the calls in flight take beyond the dearest
    before them. A call that can't be afforded with none in flight closes the account. The clock starts with the first
    call.
    """

    def __init__(self, budget: Budget | None = None, parent: Account | None = None) -> None:
        self.budget = budget or Budget()
        self.parent = parent
        self.calls = 0
        self.tokens = 0
        self._in_flight: Counter[Kind] = Counter()
        self._dearest: dict[Kind, int] = {}
        self._charged = asyncio.Event()
        self._closed = False
        self._began: float | None = None

    def empty(self, *, calls: bool = True) -> str | None:
        """Which limit is reached, in words; None while there is something left. Without `calls` their number does not
        count: a scored pair is none."""
        limit = self.budget
        if calls and limit.max_calls is not None and self.calls >= limit.max_calls:
            return f"the budget of {limit.max_calls} calls is spent"
        if limit.max_tokens is not None and (self._closed or self.tokens >= limit.max_tokens):
            return f"the budget of {limit.max_tokens} tokens is spent"
        if limit.deadline is not None and self._own_seconds_left() <= 0:
            return f"the deadline of {limit.deadline:g} s has passed"
        return self.parent.empty(calls=calls) if self.parent else None

    def seconds_left(self) -> float:
        """Until the first deadline of this account and its parents; infinity where there is none, or no call yet."""
        return min(account._own_seconds_left() for account in self._all())

    def calls_left(self, kind: Kind) -> float:
        """How many calls of a kind may still be made, with none in flight and each as dear as the dearest so far;
        infinity without a limit. A wave is cut to that before it is sent, so that the order of its calls does not
        matter; where tokens are limited the first call of a kind goes alone."""
        limit, own = self.budget, float("inf")
        if limit.max_calls is not None:
            own = float(max(limit.max_calls - self.calls, 0))
        if limit.max_tokens is not None:
            dearest = self._dearest.get(kind)
            own = min(own, 1 if not dearest else max(limit.max_tokens - self.tokens, 0) // dearest)
        if self.empty():
            return 0.0
        return min(own, self.parent.calls_left(kind)) if self.parent else own

    def carry_over(self, calls: int, tokens: int) -> None:
        """Add what an earlier process of the same run spent."""
        for account in self._all():
            account.calls += calls
            account.tokens += tokens

    def begin(self) -> None:
        """Start the clock, unless it runs."""
        for account in self._all():
            account._began = time.monotonic() if account._began is None else account._began

    def spend(self, tokens: int) -> None:
        """Charge tokens that no call to an LMM took."""
        for account in self._all():
            account.tokens += tokens

    @asynccontextmanager
    async def until_the_deadline(self) -> AsyncIterator[None]:
        """Give up at the deadline what is awaited inside. Raises `BudgetError` then."""
        left = self.seconds_left()
        if left == math.inf:
            yield
            return
        moment = asyncio.timeout(left)
        try:
            async with moment:
                yield
        except TimeoutError as error:
            if not moment.expired():
                raise
            raise BudgetError(self.empty() or "the deadline has passed") from error

    async def reserve(self, kind: Kind) -> None:
        """Reserve one call, which must be charged once it has ended. Raises `BudgetError` where nothing is left."""
        while True:
            if reason := self.empty():
                raise BudgetError(reason)
            short = next((account for account in self._all() if not account._affords(kind)), None)
            if short is None:
                break
            if short._in_flight.total():
                await short._charged.wait()
            else:
                short._closed = True
        self.begin()
        for account in self._all():
            account.calls += 1
            account._in_flight[kind] += 1

    def charge(self, kind: Kind, tokens: int) -> None:
        """Charge a reserved call that has ended, and took so many tokens."""
        for account in self._all():
            account.tokens += tokens
            account._in_flight[kind] -= 1
            account._dearest[kind] = max(account._dearest.get(kind, 0), tokens)
            account._charged.set()
            account._charged = asyncio.Event()

    def _all(self) -> Iterator[Account]:
        account: Account | None = self
        while account is not None:
            yield account
            account = account.parent

    def _own_seconds_left(self) -> float:
        if self.budget.deadline is None or self._began is None:
            return math.inf
        return self._began + self.budget.deadline - time.monotonic()

    def _affords(self, kind: Kind) -> bool:
        if self.budget.max_tokens is None:
            return True
        if kind not in self._dearest:
            return not self._in_flight[kind]
        pending = sum(count * self._dearest.get(other, 0) for other, count in self._in_flight.items())
        return self.tokens + pending + self._dearest[kind] <= self.budget.max_tokens


class BudgetedLMM:
    """An LMM whose calls are paid from an account, under a `seed`. Raises `BudgetError` where the account is empty."""

    def __init__(self, lmm: LMM, account: Account, seed: int = 0) -> None:
        self._lmm = lmm
        self._account = account
        self._seed = seed

    @property
    def identity(self) -> str:
        return self._lmm.identity

    def seeded(self, request: LMMRequest) -> LMMRequest:
        """The request under the seed, which belongs to its key: what another seed was answered is no answer to it."""
        return request.model_copy(update={"seed": self._seed}) if self._seed else request

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer one request, and pay for it; a call that fails is paid for as a call, without tokens.

        A deadline is kept for a call that waits for its turn and for one in flight, too: it is given up, and refused.
        """
        kind = (len(request.images), request.max_tokens)
        tokens = 0
        await self._in_time(self._account.reserve(kind))
        try:
            response = await self._in_time(self._lmm.generate(request))
            tokens = response.usage.prompt_tokens + response.usage.completion_tokens
            return response
        finally:
            self._account.charge(kind, tokens)

    async def _in_time(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        if self._account.seconds_left() == math.inf:
            return await work
        async with self._account.until_the_deadline():
            return await work

    async def aclose(self) -> None:
        """Does nothing: the model is closed by the code that opened it."""

"""No interleaving of calls spends more than a budget allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse, Message, TextPart, Tokens
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import BudgetError, LMMConnectionError
from tests.waiting import PATIENCE

Outcome = str  # "answered", "refused", "failed", "cancelled"


def request(number: int, images: int = 1) -> LMMRequest:
    shown = [ImagePart(image_id=f"{n}", sha256=f"{n:064d}") for n in range(images)]
    return LMMRequest(messages=(Message(content=(*shown, TextPart(text=str(number)))),))


class Paced(ScriptedLMM):
    """Call number n takes `steps[n]` turns of the loop and `tokens[n]` tokens; fewer than none, and it fails.

    `most` is the largest sum of tokens that were in flight at once.
    """

    def __init__(self, steps: Sequence[int], tokens: Sequence[int]) -> None:
        super().__init__(self._reply)
        self.steps = steps
        self.tokens = tokens
        self.spent = self.now = 0
        self.in_flight: list[int] = []

    def _reply(self, asked: LMMRequest) -> LMMResponse | Exception:
        tokens = self.tokens[int(asked.text)]
        if tokens < 0:
            return LMMConnectionError("gone")
        return LMMResponse(text="yes", usage=Tokens(prompt_tokens=tokens - tokens // 3, completion_tokens=tokens // 3))

    async def generate(self, request: LMMRequest) -> LMMResponse:
        number = int(request.text)
        self.now += 1
        self.in_flight.append(self.now)
        try:
            for _ in range(self.steps[number]):
                await asyncio.sleep(0)
            response = await super().generate(request)
            self.spent += max(self.tokens[number], 0)
            return response
        finally:
            self.now -= 1


async def play(lmm: Paced, accounts: Sequence[Account], kinds: Sequence[int], cancelled: set[int]) -> list[Outcome]:
    """All calls at once, call n from account n (cyclically); those in `cancelled` are given up after two turns."""

    async def call(number: int) -> Outcome:
        try:
            await BudgetedLMM(lmm, accounts[number % len(accounts)]).generate(request(number, kinds[number]))
        except BudgetError:
            return "refused"
        except LMMConnectionError:
            return "failed"
        return "answered"

    tasks = [asyncio.create_task(call(number)) for number in range(len(kinds))]
    for _ in range(2):
        await asyncio.sleep(0)
    for number in cancelled:
        tasks[number].cancel()
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=PATIENCE)
    return ["cancelled" if isinstance(outcome, BaseException) else outcome for outcome in done]


CALLS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-1, 60), st.integers(0, 2), st.booleans()), min_size=1, max_size=25
)
LIMIT = st.one_of(st.none(), st.integers(0, 30))


@given(CALLS, LIMIT, LIMIT, st.integers(1, 3))
async def test_no_interleaving_makes_more_calls_than_allowed(
    calls: list[tuple[int, int, int, bool]], per_query: int | None, per_run: int | None, queries: int
) -> None:
    steps, tokens, kinds, stop = zip(*calls, strict=True)
    run = Account(Budget(max_calls=per_run))
    accounts = [Account(Budget(max_calls=per_query), run) for _ in range(queries)]
    lmm = Paced(steps, tokens)
    outcomes = await play(lmm, accounts, kinds, {n for n, stopped in enumerate(stop) if stopped and n % 4 == 0})
    assert run.calls == sum(account.calls for account in accounts) == len(lmm.in_flight)
    assert run.calls <= (float("inf") if per_run is None else per_run)
    assert all(account.calls <= (float("inf") if per_query is None else per_query) for account in accounts)
    for number, outcome in enumerate(outcomes):
        if outcome == "refused":
            assert accounts[number % queries].empty()
    assert run.tokens == sum(account.tokens for account in accounts) == lmm.spent
    assert all(account.calls_left((0, 1)) >= 0 for account in (run, *accounts))


@given(CALLS, st.integers(0, 400), st.integers(1, 3))
async def test_tokens_are_overdrawn_by_at_most_what_is_in_flight(
    calls: list[tuple[int, int, int, bool]], limit: int, queries: int
) -> None:
    steps, tokens, kinds, _ = zip(*calls, strict=True)
    run = Account(Budget(max_tokens=limit))
    lmm = Paced(steps, tokens)
    outcomes = await play(lmm, [Account(parent=run) for _ in range(queries)], kinds, set())
    dearest = max(0, *tokens)
    assert run.tokens == lmm.spent <= limit + dearest * max([*lmm.in_flight, 0])
    if "refused" not in outcomes:
        assert len(lmm.in_flight) == len(calls)
    elif run.tokens < limit:  # what was left did not pay for another one of the dearest
        assert limit - run.tokens < dearest


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 50), st.integers(0, 1000))
async def test_calls_of_one_size_leave_less_than_one(steps: list[int], size: int, limit: int) -> None:
    account = Account(Budget(max_tokens=limit))
    lmm = Paced(steps, [size] * len(steps))
    await play(lmm, [account], [1] * len(steps), set())
    first = min(limit, 1) * size  # nobody knows what the first one takes
    assert account.tokens == max(min(len(steps), limit // size) * size, first)


async def test_a_refused_call_reaches_no_model() -> None:
    lmm = ScriptedLMM(lambda _: 0.5)
    door = BudgetedLMM(lmm, Account(Budget(max_calls=1)))
    await door.generate(request(1))
    with pytest.raises(BudgetError, match="the budget of 1 calls is spent"):
        await door.generate(request(2))
    assert len(lmm.requests) == 1
    assert door.identity == lmm.identity


async def test_a_failed_call_is_a_call() -> None:
    account = Account(Budget(max_calls=2, max_tokens=100))
    door = BudgetedLMM(ScriptedLMM(lambda _: LMMConnectionError("gone")), account)
    for number in range(2):
        with pytest.raises(LMMConnectionError):
            await door.generate(request(number))
    assert (account.calls, account.tokens, account.calls_left((0, 1))) == (2, 0, 0)


async def test_a_deadline_counts_from_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("fieldscope.agent.budget.time.monotonic", lambda: now)
    run = Account(Budget(deadline=2.5))
    door = BudgetedLMM(ScriptedLMM(lambda _: 0.5), Account(parent=run))
    now = 500.0
    await door.generate(request(1))
    now = 502.4
    await door.generate(request(2))
    now = 502.5
    with pytest.raises(BudgetError, match=r"the deadline of 2\.5 s has passed"):
        await door.generate(request(3))


async def test_a_run_knows_what_a_call_takes_before_another_query_begins() -> None:
    """A new query's first calls are booked at the run's price, not at nothing."""
    run = Account(Budget(max_tokens=100))
    await BudgetedLMM(Paced([0], [40]), Account(parent=run)).generate(request(0))
    lmm = Paced([3] * 8, [40] * 8)
    outcomes = await play(lmm, [Account(parent=run) for _ in range(4)], [1] * 8, set())
    assert outcomes.count("answered") == 1
    assert run.tokens == 80


async def test_what_an_earlier_process_spent_counts() -> None:
    run = Account(Budget(max_calls=10, max_tokens=1000))
    run.carry_over(calls=9, tokens=500)
    query = Account(parent=run)
    assert (query.empty(), query.calls_left((0, 1))) == (None, 1)
    await BudgetedLMM(Paced([0], [1]), query).generate(request(0))
    assert query.empty() == "the budget of 10 calls is spent"
    assert (run.tokens, query.tokens) == (501, 1)


def test_without_limits_nothing_ever_ends() -> None:
    account: Any = Account()
    assert (account.empty(), account.calls_left((0, 1))) == (None, float("inf"))

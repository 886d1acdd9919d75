"""A deadline gives up calls in flight at the door to the model: what they would have said is not asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import BudgetError
from fieldscope.core.types import Candidate, Query
from tests.agent.conftest import AgentFactory

PATIENCE = 60
QUERY = Query(id="q1", text="a crab")


class Hanging(ScriptedLMM):
    """Answers yes once `go` is set; until then its first `free` calls only."""

    def __init__(self, free: int = 0) -> None:
        super().__init__(lambda request: 0.9)
        self.go = asyncio.Event()
        self.free = free

    async def generate(self, request: LMMRequest) -> LMMResponse:
        response = await super().generate(request)
        if len(self.requests) > self.free:
            await self.go.wait()
        return response


def question(text: str = "is it?") -> LMMRequest:
    return LMMRequest(messages=(Message(content=(TextPart(text=text),)),))


async def test_a_call_in_flight_is_given_up_and_its_answer_still_goes_to_the_cache() -> None:
    lmm, store = Hanging(), MemoryStore()
    cached = CachedLMM(lmm, store)
    account = Account(Budget(deadline=0.01))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BudgetError, match=r"the deadline of 0\.01 s has passed"):
            await BudgetedLMM(cached, account).generate(question())
        with pytest.raises(BudgetError):
            await BudgetedLMM(cached, account).generate(question("and that?"))
    assert (account.calls, len(lmm.requests)) == (1, 1)
    lmm.go.set()
    await cached.drain(PATIENCE)
    assert (await cached.generate(question())).cached


async def test_a_call_that_waits_for_its_turn_is_given_up_too() -> None:
    lmm = Hanging()
    account = Account(Budget(max_tokens=1000, deadline=0.01))  # so the first of a kind goes alone
    async with asyncio.timeout(PATIENCE):
        calls = [BudgetedLMM(lmm, account).generate(question(str(n))) for n in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BudgetError] * 3
    assert len(lmm.requests) == 1


async def test_a_run_s_deadline_gives_up_its_queries_calls() -> None:
    account = Account(Budget(deadline=1000), Account(Budget(deadline=0.01)))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BudgetError, match=r"the deadline of 0\.01 s"):
            await BudgetedLMM(Hanging(), account).generate(question())


async def test_a_model_s_own_timeout_is_no_deadline() -> None:
    lmm = ScriptedLMM(lambda request: TimeoutError("of its own"))
    with pytest.raises(TimeoutError, match="of its own"):
        await BudgetedLMM(lmm, Account(Budget(deadline=1000))).generate(question())


@pytest.mark.parametrize("strategy", ["yes-no", "agent", "pairwise"])
@pytest.mark.parametrize("free", [0, 1])
async def test_a_hanging_model_leaves_a_whole_ranking_that_says_where_it_ended(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...], pictures: Path, strategy: str, free: int
) -> None:
    agent = make_agent(Hanging(free), strategy)
    async with asyncio.timeout(PATIENCE):
        result = await agent.rerank(QUERY, candidates, budget=Budget(deadline=0.05))
    assert sorted(ranked.image_id for ranked in result.ranking) == sorted(c.image_id for c in candidates)
    assert result.ended is not None
    told = [*result.verdicts, *result.comparisons, *result.calls]
    assert not [question for question in told if question.state == "unknown" and not question.completion_tokens]

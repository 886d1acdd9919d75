"""A stage that got no answer is named, with the server's words and what the ranking rests on in its place."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.types import RerankResult, lost_stage
from fieldscope.core.errors import LMMRequestError
from fieldscope.core.types import Candidate, Query
from tests.agent.conftest import AgentFactory

WORDS = "http://gpu/v1 answered 400: response_format json_schema is not supported"
QUERY = Query(id="q1", text="a crab")
REFUSAL = LMMRequestError(WORDS)
LETTERS = LMMResponse(
    text="A",
    answer_logprobs=(TokenLogprob(token="A", logprob=math.log(0.7)), TokenLogprob(token="B", logprob=math.log(0.3))),
)


def lost(result: RerankResult) -> dict[str | None, str]:
    return {lost_stage(flag): flag for flag in result.flags if lost_stage(flag)}


def without(*refused: Callable[[LMMRequest], object]) -> ScriptedLMM:
    def answer(request: LMMRequest) -> Answer:
        if any(refuses(request) for refuses in refused):
            return REFUSAL
        return LETTERS if several(request) else 0.7

    return ScriptedLMM(answer)


def structured(request: LMMRequest) -> bool:
    return request.json_schema is not None


def several(request: LMMRequest) -> bool:
    return len(request.images) > 1


def single(request: LMMRequest) -> bool:
    return len(request.images) == 1


async def test_a_server_without_schemas_costs_the_thinking_and_says_so(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...]
) -> None:
    result = await make_agent(without(structured), "agent").rerank(QUERY, candidates)
    told = lost(result)
    assert set(told) == {"synthesize"}
    assert WORDS in told["synthesize"] and "the query's own words stand in" in told["synthesize"]


async def test_comparisons_that_a_server_refuses(make_agent: AgentFactory, candidates: tuple[Candidate, ...]) -> None:
    told = lost(await make_agent(without(several), "pairwise").rerank(QUERY, candidates))
    assert set(told) == {"compare"}
    assert WORDS in told["compare"] and "the order rests on the" in told["compare"]


async def test_verdicts_and_reasons_that_a_server_refuses(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...]
) -> None:
    result = await make_agent(without(single), "yes-no").rerank(QUERY, candidates)
    assert lost(result) == {
        "verify": f"the stage 'verify' was lost ({WORDS}); the order rests on the first stage alone"
    }
    assert [ranked.image_id for ranked in result.ranking] == [candidate.image_id for candidate in candidates]


async def test_one_answer_is_enough_and_a_budget_is_no_loss(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...]
) -> None:
    once = iter([0.9])
    partly = ScriptedLMM(lambda request: next(once, REFUSAL))
    assert not lost(await make_agent(partly, "yes-no").rerank(QUERY, candidates))
    broke = await make_agent(without(), "agent").rerank(QUERY, candidates, budget=Budget(max_calls=0))
    assert not lost(broke)
    assert broke.ended is not None


@pytest.mark.parametrize("name", ["yes-no", "pairwise"])
async def test_with_a_healthy_server_nothing_is_lost(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...], name: str
) -> None:
    assert not lost(await make_agent(without(), name).rerank(QUERY, candidates))

"""A prompt that is longer than the model's context ends the work with one sentence; one that the model's own words made
so long does not."""

from __future__ import annotations

import pytest

from fieldscope.agent.json_answer import ask_structured
from fieldscope.agent.lmm.base import LMMRequest, Message, TextPart
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.schemas import PredicatesAnswer
from fieldscope.core.errors import ContextLengthError
from fieldscope.core.types import Candidate, Query
from tests.agent.conftest import AgentFactory

QUERY = Query(id="q1", text="a crab")
TOO_LONG = ContextLengthError("http://gpu/v1 answered 400: maximum context length is 1024 tokens")


@pytest.mark.parametrize(
    ("strategy", "images"), [("yes-no", 1), ("agent", 0), ("agent", 1), ("pairwise", 2), ("setwise", 4)]
)
async def test_it_ends_the_query_and_is_no_unknown(
    make_agent: AgentFactory, candidates: tuple[Candidate, ...], strategy: str, images: int
) -> None:
    lmm = ScriptedLMM(lambda request: TOO_LONG if len(request.images) == images else 0.7)
    with pytest.raises(ContextLengthError, match="maximum context length is 1024 tokens"):
        await make_agent(lmm, strategy).rerank(QUERY, candidates)


@pytest.mark.parametrize("grows", [True, False])
async def test_what_the_model_made_long_is_unknown(grows: bool) -> None:
    def answer(request: LMMRequest) -> Answer:
        return TOO_LONG if len(request.messages) > 1 or grows else "no json " * 1000

    request = LMMRequest(messages=(Message(content=(TextPart(text="what is it?"),)),), max_tokens=8)
    said = await ask_structured(ScriptedLMM(answer), request, PredicatesAnswer, 1, "decompose", grows=grows)
    assert said.value is None and said.error is not None
    assert "maximum context length" in said.error
    assert (said.calls[-1].state, said.calls[-1].refused) == ("unknown", True)
    with pytest.raises(ContextLengthError):
        await ask_structured(ScriptedLMM(lambda _: TOO_LONG), request, PredicatesAnswer, 1, "synthesize")

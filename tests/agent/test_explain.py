"""explain: reasons for the head of a ranking that stands, and whether they agree with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, LMMResponse, TextPart
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.nodes.explain import explain
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Call, RankedCandidate, RerankResult, Synthesis, TraceEvent
from fieldscope.core.errors import ConfigError, LMMServerError
from fieldscope.core.types import Query, Turn
from fieldscope.retrieval.collection import FolderCollection
from tests.waiting import Crowd

QUERY = Query(id="q1", text="a red crab", dialogue=(Turn(question="where?", answer="on a beach"),))
SYNTHESIS = Synthesis(thought="", core="a crab", detailed="a red crab", comprehensive="a red crab on a beach")
RANKED = TraceEvent(kind="ranked", at=1.0)


def result(*p_match: float | None, **fields: Any) -> RerankResult:
    """`0.png`, `1.png` ... in this order, with these P(match)."""
    ranking = tuple(
        RankedCandidate(image_id=f"{n}.png", rank=n + 1, score=-n, prior=-n, prior_rank=n + 1, p_match=p)
        for n, p in enumerate(p_match)
    )
    known = {"query_id": "q1", "query_text": QUERY.text, "strategy": "agent", "ranking": ranking, "trace": (RANKED,)}
    return RerankResult(**{**known, **fields})


async def run(
    ranked: RerankResult | None, lmm: LMM | None, pictures: Path, strategy: str = "agent", **state: Any
) -> dict[str, Any]:
    deps = Resources(images=FolderCollection(pictures), max_concurrency=2)
    begun = RerankState(query=QUERY, result=ranked, **{"synthesis": SYNTHESIS, **state})
    return await explain(begun, Context(deps, load_strategy(strategy, prompts="fieldnotes"), lmm))


def by_image(**answers: Answer) -> ScriptedLMM:
    """Answers by picture: `_2` is for 2.png."""

    def answer(request: LMMRequest) -> Answer:
        (image,) = request.images
        return answers[f"_{image.image_id[0]}"]

    return ScriptedLMM(answer)


async def test_the_best_with_a_p_match_are_explained(pictures: Path) -> None:
    lmm = by_image(_0="Yes, it shows\na crab.", _2="no, it is a fox.", _3="it is a crab.")
    update = await run(result(0.9, None, 0.8, 0.7, 0.6), lmm, pictures)
    reasons = update["reasons"]
    assert [(r.image_id, r.text, r.says, r.agrees) for r in reasons] == [
        ("0.png", "Yes, it shows a crab.", "yes", True),
        ("2.png", "no, it is a fox.", "no", False),
        ("3.png", "it is a crab.", None, None),
    ]
    explained = update["result"]
    assert explained.reasons == reasons
    assert explained.ranking == result(0.9, None, 0.8, 0.7, 0.6).ranking
    assert (explained.ended, explained.flags) == (None, ())
    before, event = explained.trace
    assert (before, event.kind) == (RANKED, "explained")
    assert update["trace"] == (event,)
    assert event.data["images"] == ["0.png", "2.png", "3.png"]
    assert event.data["disagree"] == ["2.png"]
    assert event.data["requests"] == [reason.request_key for reason in reasons]


async def test_the_image_comes_first_and_the_whole_description_is_asked_about(pictures: Path) -> None:
    lmm = by_image(_0="yes")
    await run(result(0.9), lmm, pictures)
    (request,) = lmm.requests
    (message,) = request.messages
    image, question = message.content
    assert isinstance(image, ImagePart)
    assert isinstance(question, TextPart)
    assert '"a red crab on a beach"' in question.text
    assert request.max_tokens == 64
    await run(result(0.9), lmm, pictures, synthesis=None)
    assert '"a red crab, on a beach"' in lmm.requests[1].text


@pytest.mark.parametrize(
    ("text", "p_match", "says", "agrees"),
    [
        ("yes.", 0.5, "yes", False),
        ("**No**: a fox.", 0.1, "no", True),
        ("Nothing is red here.", 0.1, None, None),
        ("It says yes.", 0.9, None, None),
        ("!?", 0.9, None, None),
    ],
)
async def test_the_first_word_is_the_side_it_takes(
    text: str, p_match: float, says: Literal["yes", "no"] | None, agrees: bool | None, pictures: Path
) -> None:
    (reason,) = (await run(result(p_match), by_image(_0=text), pictures))["reasons"]
    assert (reason.state, reason.says, reason.agrees) == ("answered", says, agrees)


async def test_without_the_stage_or_a_result_nothing_happens(pictures: Path) -> None:
    lmm = ScriptedLMM({})
    assert await run(result(0.9), lmm, pictures, "predicates") == {}
    assert await run(None, lmm, pictures) == {}
    assert lmm.requests == []


async def test_without_a_model_there_is_nobody_to_ask(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="asks a judge, but no model has this role"):
        await run(result(0.9), None, pictures)


async def test_what_fails_is_unknown_and_counted_among_the_flags(pictures: Path) -> None:
    calls = (Call(stage="synthesize", state="unknown"), Call(stage="synthesize", state="answered"))
    ranked = result(0.9, 0.8, 0.7, calls=calls, flags=("old pictures", "1 of 2 calls gave no answer"))
    broken = ranked.ranking[0].model_copy(update={"image_id": "broken.png"})
    ranked = ranked.model_copy(update={"ranking": (broken, *ranked.ranking[1:])})
    update = await run(ranked, by_image(_1=LMMServerError("status 500"), _2="  "), pictures)
    reasons = update["reasons"]
    assert [r.state for r in reasons] == ["unknown"] * 3
    assert [r.error for r in reasons[1:]] == ["status 500", "the answer is empty"]
    assert "broken.png" in reasons[0].error
    lost = "the stage 'explain' was lost (the answer is empty); the ranking stands without reasons"
    assert update["result"].flags == ("old pictures", lost, "4 of 5 calls gave no answer")
    assert update["result"].ended is None


@pytest.mark.parametrize(("before", "after"), [(None, "explain"), ("verify", "verify")])
async def test_a_budget_that_ends_here_is_said(before: str | None, after: str, pictures: Path) -> None:
    lmm = BudgetedLMM(by_image(_0="yes"), Account(Budget(max_calls=1)))
    update = await run(result(0.9, 0.8, 0.7, ended=before), lmm, pictures)
    assert [r.state for r in update["reasons"]] == ["answered", "not_asked", "not_asked"]
    assert update["result"].ended == after
    assert update["result"].flags == ()
    assert update["result"].trace[-1].data["calls"] == 1


class CrowdedLMM(ScriptedLMM):
    """Answers once two calls are out at once."""

    def __init__(self) -> None:
        super().__init__(lambda request: "yes")
        self.crowd = Crowd(2)

    async def generate(self, request: LMMRequest) -> LMMResponse:
        async with self.crowd.join():
            return await super().generate(request)


async def test_reasons_are_asked_for_together_within_the_limit(pictures: Path) -> None:
    lmm = CrowdedLMM()
    await run(result(0.9, 0.8, 0.7), lmm, pictures)
    assert lmm.crowd.most == 2


@given(st.lists(st.text(max_size=20), min_size=3, max_size=3))
async def test_whatever_a_model_says_the_ranking_stands(pictures: Path, texts: Sequence[str]) -> None:
    say: Callable[[LMMRequest], str] = lambda request: texts[int(request.images[0].image_id[0])]  # noqa: E731
    ranked = result(0.9, 0.8, 0.1)
    explained = (await run(ranked, ScriptedLMM(say), pictures))["result"]
    assert explained.ranking == ranked.ranking
    assert all((reason.agrees is None) == (reason.says is None) for reason in explained.reasons)
    assert all((reason.state == "answered") == bool(reason.text) for reason in explained.reasons)

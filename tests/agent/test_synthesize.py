"""synthesize: three descriptions and instructions, or the request's own words and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMM, LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.nodes.synthesize import LONGEST_CAPTION, synthesize
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Instruction, Synthesis
from fieldscope.core.errors import ConfigError, LMMServerError
from fieldscope.core.types import Query, Turn
from fieldscope.retrieval.collection import FolderCollection

QUERY = Query(id="q1", text="two red crabs without litter")
CHANGE = Query(id="q2", text="the same, but on snow", reference_image="1.png")
ANSWER: dict[str, Any] = {
    "thought": "this is about crabs.",
    "core": "a crab",
    "detailed": "two red crabs",
    "comprehensive": "two red crabs without litter",
    "instructions": [
        {"text": "two crabs", "words": "Two red crabs", "type": "addition"},
        {"text": "crab without litter", "words": "no rubbish", "type": "removal"},
    ],
}
SAID = json.dumps(ANSWER)
EARLIER = Synthesis(thought="crabs.", core="a crab", detailed="a crab", comprehensive="a crab somewhere")
STRATEGY = load_strategy("agent", prompts="fieldnotes")


async def run(state: RerankState, lmm: LMM | None, pictures: Path = Path(__file__).parent) -> dict[str, Any]:
    deps = Resources(images=FolderCollection(pictures))
    return await synthesize(state, Context(deps, STRATEGY, lmm, Account()))


def told(update: dict[str, Any]) -> dict[str, Any]:
    (event,) = update["trace"]
    assert event.kind == "synthesized"
    return dict(event.data)


async def test_a_query_is_thought_out() -> None:
    lmm = ScriptedLMM({'query: "two red crabs without litter".': SAID})
    update = await run(RerankState(query=QUERY), lmm)
    assert update["synthesis"] == Synthesis(
        thought="this is about crabs.",
        core="a crab",
        detailed="two red crabs",
        comprehensive="two red crabs without litter",
        instructions=(
            Instruction(text="two crabs", words="Two red crabs"),
            Instruction(text="crab without litter", type="removal"),  # the query does not say "no rubbish"
        ),
    )
    (call,) = update["calls"]
    assert (call.stage, call.state, call.text) == ("synthesize", "answered", SAID)
    data = told(update)
    assert data["requests"] == [call.request_key]
    assert (data["round"], data["fallback"], data["kept"], data["calls"]) == (0, None, None, 1)
    assert data["tokens"] == call.prompt_tokens + call.completion_tokens
    (request,) = lmm.requests
    assert (request.max_tokens, request.images) == (512, ())
    assert [message.role for message in request.messages] == ["system", "user"]


async def test_a_dialogue_is_thought_out_with_its_rounds() -> None:
    query = Query(id="q", text="a crab", dialogue=(Turn(question="where is it?", answer="on a Reef"),))
    answer = ANSWER | {"instructions": [{"text": "on a reef", "words": "on a reef", "type": "addition"}]}
    update = await run(RerankState(query=query), ScriptedLMM({"a: on a Reef.": json.dumps(answer)}))
    assert update["synthesis"].instructions[0].words == "on a reef"


async def test_a_reference_image_is_put_into_words_first(pictures: Path) -> None:
    caption = "  a red crab\n on sand. "
    instructions = [
        {"text": "on snow", "words": "on snow", "type": "modification"},
        {"text": "a crab", "words": "a red crab", "type": "retention"},
    ]
    lmm = ScriptedLMM(
        {
            "describe the image.": caption,
            'reference: "a red crab on sand.". change: "the same, but on snow".': json.dumps(
                ANSWER | {"instructions": instructions}
            ),
        }
    )
    update = await run(RerankState(query=CHANGE), lmm, pictures)
    first, second = update["calls"]
    assert (first.stage, first.text, second.stage) == ("caption", "a red crab on sand.", "synthesize")
    assert update["caption"] == told(update)["caption"] == "a red crab on sand."
    assert [image.image_id for image in lmm.requests[0].images] == ["1.png"]
    assert lmm.requests[0].json_schema is None
    assert [i.words for i in update["synthesis"].instructions] == ["on snow", "a red crab"]
    assert told(update)["requests"] == [first.request_key, second.request_key]


async def test_a_caption_that_is_known_is_not_asked_again(pictures: Path) -> None:
    lmm = ScriptedLMM({'reference: "a fox".': SAID})
    update = await run(RerankState(query=CHANGE, caption="a fox"), lmm, pictures)
    assert [call.stage for call in update["calls"]] == ["synthesize"]
    assert update["caption"] == "a fox"


async def test_a_caption_has_a_length(pictures: Path) -> None:
    update = await run(RerankState(query=CHANGE), ScriptedLMM(lambda _: "crab " * 1000), pictures)
    assert len(update["caption"]) == LONGEST_CAPTION
    assert "\n" not in update["caption"]


@pytest.mark.parametrize(
    ("reference", "answer", "why"),
    [
        ("1.png", " \n ", "the answer is empty"),
        ("1.png", LMMServerError("status 500"), "status 500"),
        ("broken.png", "a crab", "broken.png"),
    ],
)
async def test_without_a_caption_the_change_stands_for_itself(
    reference: str, answer: str | Exception, why: str, pictures: Path
) -> None:
    lmm = ScriptedLMM({"describe": answer})
    query = CHANGE.model_copy(update={"reference_image": reference})
    update = await run(RerankState(query=query), lmm, pictures)
    (call,) = update["calls"]
    assert (call.stage, call.state) == ("caption", "unknown")
    synthesis = update["synthesis"]
    assert synthesis.comprehensive == CHANGE.text
    assert synthesis.fallback.startswith("the reference image has no caption: ")
    assert why in synthesis.fallback


async def test_an_unreadable_answer_leaves_the_requests_own_words(pictures: Path) -> None:
    dialogue = QUERY.model_copy(update={"dialogue": (Turn(question="where?", answer="on a beach"),)})
    update = await run(RerankState(query=dialogue), ScriptedLMM(lambda _: "I would rather not."))
    synthesis = update["synthesis"]
    assert synthesis.descriptions == ("two red crabs without litter, on a beach",)
    assert synthesis.instructions == (Instruction(text=synthesis.core, words=QUERY.text),)
    why = "there is no JSON object in it; then there is no JSON object in it"
    assert synthesis.fallback == told(update)["fallback"] == why
    assert [call.state for call in update["calls"]] == ["unknown", "unknown"]

    lmm = ScriptedLMM({"change:": "{}", "describe": "a fox"})
    composed = await run(RerankState(query=CHANGE), lmm, pictures)
    assert composed["synthesis"].comprehensive == "a fox, the same, but on snow"


async def test_an_empty_budget_is_a_fallback_too() -> None:
    lmm = BudgetedLMM(ScriptedLMM({}), Account(Budget(max_calls=0)))
    update = await run(RerankState(query=QUERY), lmm)
    assert update["synthesis"].fallback == "the budget of 0 calls is spent"
    (call,) = update["calls"]
    assert (call.stage, call.state) == ("synthesize", "not_asked")
    assert told(update)["calls"] == 0


def refining(**fields: Any) -> RerankState:
    return RerankState(query=QUERY, round=1, fault="too few images match.", **{"synthesis": EARLIER, **fields})


async def test_a_later_round_is_told_what_was_wanting() -> None:
    lmm = ScriptedLMM({'the earlier answer was: "a crab somewhere" too few images match.': SAID})
    update = await run(refining(), lmm)
    assert update["synthesis"].comprehensive == "two red crabs without litter"
    assert [call.stage for call in update["calls"]] == ["refine"]
    assert told(update)["round"] == 1
    assert told(update)["kept"] is None
    assert QUERY.text in lmm.requests[0].text


async def test_a_second_answer_that_says_the_same_keeps_the_first() -> None:
    first = (await run(RerankState(query=QUERY), ScriptedLMM(lambda _: SAID)))["synthesis"]
    again = ScriptedLMM(lambda _: json.dumps(ANSWER | {"thought": "let me see again."}))
    update = await run(refining(synthesis=first), again)
    assert update["synthesis"] == first
    assert told(update)["kept"] == "the new answer says the same"


async def test_a_second_answer_that_cannot_be_read_keeps_the_first() -> None:
    update = await run(refining(), ScriptedLMM(lambda _: LMMServerError("status 503")))
    assert update["synthesis"] == EARLIER
    assert told(update)["kept"] == "status 503"
    assert told(update)["fallback"] is None


async def test_a_fallback_can_be_mended_in_a_later_round() -> None:
    fallback = EARLIER.model_copy(update={"fallback": "status 500"})
    update = await run(refining(synthesis=fallback), ScriptedLMM(lambda _: SAID))
    assert update["synthesis"].fallback is None


async def test_without_a_model_there_is_nothing_to_ask() -> None:
    with pytest.raises(ConfigError, match="asks a reasoner, but no model has this role"):
        await run(RerankState(query=QUERY), None)


texts = st.text(max_size=30)
almost = st.fixed_dictionaries({}, optional=dict.fromkeys(ANSWER, texts | st.lists(texts)) | {"instructions": st.lists(
    st.fixed_dictionaries({"text": texts, "words": texts, "type": st.sampled_from(["addition", "Removal", "?"])}))}
)  # fmt: skip


@given(texts | almost.map(lambda part: json.dumps(ANSWER | part)), texts)
async def test_whatever_a_model_says_there_is_a_synthesis_of_this_very_request(answer: str, text: str) -> None:
    def say(_: LMMRequest) -> str:
        return answer

    synthesis = (await run(RerankState(query=Query(id="q", text=text)), ScriptedLMM(say)))["synthesis"]
    assert synthesis.instructions
    said = " ".join(text.split()).casefold()
    assert all(" ".join(i.words.split()).casefold() in said for i in synthesis.instructions)
    if synthesis.fallback is not None:
        assert synthesis.descriptions == (text,)

"""decompose: instructions to predicates that are different, traceable, and keep their ids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.context import Context
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.nodes.decompose import decompose, predicate
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Instruction, Operation, Predicate, Synthesis
from fieldscope.core.errors import ConfigError, LMMServerError
from fieldscope.core.types import Query
from fieldscope.retrieval.collection import FolderCollection

QUERY = Query(id="q1", text="Two red crabs without litter")
INSTRUCTIONS = (
    Instruction(text="two crabs", words="Two red crabs"),
    Instruction(text="crab without litter", words="without litter", type="removal"),
)
THOUGHT = Synthesis(
    thought="", core="a crab", detailed="two crabs", comprehensive="two red crabs", instructions=INSTRUCTIONS
)
STATE = RerankState(query=QUERY, synthesis=THOUGHT)
STRATEGY = load_strategy("agent", prompts="fieldnotes")
assert STRATEGY.verify is not None
PARTS_ONLY = STRATEGY.model_copy(update={"verify": STRATEGY.verify.model_copy(update={"whole": None})})


def question(text: str, expected: str = "yes", words: str = "", kind: str = "subject") -> dict[str, str]:
    return {"question": text, "expected": expected, "words": words, "type": kind}


def saying(*questions: dict[str, str]) -> ScriptedLMM:
    return ScriptedLMM(lambda _: json.dumps({"predicates": questions}))


async def run(
    state: RerankState, lmm: LMM | None, most: int | None = None, strategy: Strategy = STRATEGY
) -> dict[str, Any]:
    if most and strategy.decompose:
        strategy = strategy.model_copy(
            update={"decompose": strategy.decompose.model_copy(update={"max_predicates": most})}
        )
    deps = Resources(images=FolderCollection(Path(__file__).parent))
    return await decompose(state, Context(deps, strategy, lmm, Account()))


def told(update: dict[str, Any]) -> dict[str, Any]:
    (event,) = update["trace"]
    assert event.kind == "decomposed"
    return dict(event.data)


async def test_instructions_become_predicates() -> None:
    lmm = saying(
        question("are there two crabs?", words="two", kind="count"),
        question("does the crab have litter?", "no", "without litter", "absence"),
    )
    update = await run(STATE, lmm)
    count, absence = update["predicates"]
    assert (count.question, count.expected, count.kind, count.words) == ("are there two crabs?", "yes", "count", "two")
    assert (absence.expected, absence.kind, absence.words) == ("no", "absence", "without litter")
    assert '1. addition: two crabs ("Two red crabs"). 2. removal: crab without litter' in lmm.requests[0].text
    (call,) = update["calls"]
    assert (call.stage, call.state) == ("decompose", "answered")
    data = told(update)
    assert data["new"] == {
        count.id: "are there two crabs? yes",
        absence.id: "does the crab have litter? no",
    }
    assert (data["fallback"], data["left_out"], data["predicates"]) == (None, [], 2)
    assert data["requests"] == [call.request_key]


def test_an_id_is_short_stable_and_the_questions_own() -> None:
    one = predicate("Is there  a crab?")
    assert re.fullmatch(r"p-[0-9a-f]{8}", one.id)
    assert one.id == "p-e23a04a0"  # sha256sum of "is there a crab yes"
    assert one.id == predicate("is there a crab", kind="count", words="crab").id
    assert len({one.id, predicate("is there a crab?", "no").id, predicate("is there a fox?").id}) == 3


async def test_a_question_is_asked_once_and_with_one_expected_answer() -> None:
    update = await run(
        STATE,
        saying(
            question("is there a crab?"),
            question("Is there a crab"),
            question("is there a fox?"),
            question("is there a crab?", "no"),
        ),
    )
    assert [(p.question, p.expected) for p in update["predicates"]] == [
        ("is there a crab?", "yes"),
        ("is there a fox?", "yes"),
    ]
    assert told(update)["left_out"] == [
        "Is there a crab (asked twice)",
        "is there a crab? (asked before with the other answer)",
    ]


async def test_there_are_no_more_predicates_than_the_strategy_allows() -> None:
    update = await run(STATE, saying(*(question(f"is there animal {n}?") for n in range(5))), most=3)
    assert [p.question[-2] for p in update["predicates"]] == ["0", "1", "2"]
    assert told(update)["left_out"] == [f"is there animal {n}? (more than 3 questions)" for n in (3, 4)]


async def test_words_that_nobody_said_are_the_instructions_or_none() -> None:
    two = await run(STATE, saying(question("is it red?", words="RED CRABS,"), question("is it clean?", words="clean")))
    assert [p.words for p in two["predicates"]] == ["RED CRABS", "without litter"]
    one = await run(STATE, saying(question("is it clean?", words="clean")))
    assert [p.words for p in one["predicates"]] == [""]
    captioned = STATE.model_copy(update={"caption": "a clean beach"})
    assert (await run(captioned, saying(question("is it clean?", words="clean"))))["predicates"][0].words == "clean"


@pytest.mark.parametrize(
    ("text", "operation", "asked", "expected", "kind"),
    [
        ("two crabs.", "addition", "two crabs", "yes", "other"),
        ("more crabs than foxes", "comparison", "more crabs than foxes", "yes", "comparison"),
        ("a crab without litter", "removal", "a crab with litter", "no", "absence"),
        ("No plastic trash", "removal", "plastic trash", "no", "absence"),
        ("plastic trash", "removal", "plastic trash", "no", "absence"),
        ("a crab with no other animal", "removal", "a crab with other animal", "no", "absence"),
        ("without a leaf", "removal", "a leaf", "no", "absence"),
        ("crab alone", "removal", "crab alone", "yes", "absence"),
        ("a crab without litter", "retention", "a crab without litter", "yes", "other"),
    ],
)
async def test_without_an_answer_each_instruction_is_a_question(
    text: str, operation: Operation, asked: str, expected: str, kind: str
) -> None:
    instruction = Instruction(text=text, words="Two", type=operation)
    state = STATE.model_copy(update={"synthesis": THOUGHT.model_copy(update={"instructions": (instruction,)})})
    update = await run(state, ScriptedLMM(lambda _: LMMServerError("status 500")))
    (only,) = update["predicates"]
    assert (only.question, only.expected) == (f"does the image show {asked}?", expected)
    assert (only.kind, only.words) == (kind, "Two")
    assert told(update)["fallback"] == "status 500"
    assert [call.state for call in update["calls"]] == ["unknown"]


async def test_an_empty_budget_is_a_fallback_too() -> None:
    update = await run(STATE, BudgetedLMM(ScriptedLMM({}), Account(Budget(max_calls=0))))
    assert len(update["predicates"]) == 2
    assert told(update)["fallback"] == "the budget of 0 calls is spent"
    assert [call.state for call in update["calls"]] == ["not_asked"]


async def test_a_request_that_was_not_thought_out_is_one_question() -> None:
    lmm = ScriptedLMM({})
    fallback = THOUGHT.model_copy(update={"fallback": "status 500"})
    update = await run(STATE.model_copy(update={"synthesis": fallback}), lmm)
    assert update["predicates"] == ()  # the strategy asks about the whole anyway
    update = await run(STATE.model_copy(update={"synthesis": fallback}), lmm, strategy=PARTS_ONLY)
    (only,) = update["predicates"]
    assert only.question == 'does this image match the description: "two red crabs"?'
    assert (only.expected, only.kind, only.words) == ("yes", "query", QUERY.text)
    assert told(update)["fallback"] == "the request was not thought out: status 500"
    assert lmm.requests == []


def later(first: dict[str, Any], **fields: Any) -> RerankState:
    known = {"predicates": first["predicates"], "calls": first["calls"]}
    return STATE.model_copy(update={"round": 1, **known, **fields})


async def test_a_later_round_keeps_what_is_asked_again_and_drops_what_is_not() -> None:
    first = await run(STATE, saying(question("is there a crab?"), question("is it red?", kind="colour")))
    crab, red = first["predicates"]
    thought = THOUGHT.model_copy(update={"instructions": INSTRUCTIONS[:1]})
    lmm = saying(question("are there two?"), question("Is there a crab?"))
    update = await run(later(first, synthesis=thought), lmm)
    two, same = update["predicates"]
    assert same == crab
    data = told(update)
    assert (data["new"], data["gone"]) == ({two.id: "are there two? yes"}, [red.id])


async def test_the_same_instructions_are_not_taken_apart_twice() -> None:
    lmm = saying(question("is there a crab?"))
    first = await run(STATE, lmm)
    update = await run(later(first), lmm)
    assert update["predicates"] == first["predicates"]
    assert "calls" not in update
    assert told(update)["calls"] == 0
    assert len(lmm.requests) == 1


async def test_instructions_that_come_back_are_taken_apart_for_themselves() -> None:
    first = await run(STATE, saying(question("is there a crab?")))
    other = THOUGHT.model_copy(update={"instructions": INSTRUCTIONS[:1]})
    second = await run(later(first, synthesis=other), saying(question("is it red?")))
    both = {"predicates": second["predicates"], "calls": first["calls"] + second["calls"]}
    third = await run(later(both), saying(question("is there a crab?")))
    assert third["predicates"] == first["predicates"]


async def test_an_answer_that_failed_is_asked_for_again() -> None:
    failed = await run(STATE, ScriptedLMM(lambda _: LMMServerError("status 500")))
    update = await run(later(failed), saying(question("is there a crab?")))
    assert [p.question for p in update["predicates"]] == ["is there a crab?"]
    assert told(update)["fallback"] is None


async def test_without_a_synthesis_there_is_nothing_to_take_apart() -> None:
    with pytest.raises(ConfigError, match="run synthesize before it"):
        await run(RerankState(query=QUERY), saying())


texts = st.text(max_size=30)
questions = st.fixed_dictionaries(
    {"question": texts, "expected": st.sampled_from(["yes", "No", "perhaps"]), "words": texts, "type": texts}
)


@given(texts | st.lists(questions).map(lambda said: json.dumps({"predicates": said})), st.integers(1, 5))
async def test_whatever_a_model_says_there_are_predicates_of_this_very_request(answer: str, most: int) -> None:
    predicates: tuple[Predicate, ...] = (await run(STATE, ScriptedLMM(lambda _: answer), most))["predicates"]
    assert 1 <= len(predicates) <= most
    assert len({p.id for p in predicates}) == len(predicates)
    assert all(" ".join(p.words.split()).casefold() in QUERY.text.casefold() for p in predicates)

"""Answers in JSON: what a server is told of their shape, how they are read, and how a wrong one is mended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.json_answer import LONGEST, ask_structured
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.schemas import MAX_ENTRIES, AnswersAnswer, PredicatesAnswer, SynthesisAnswer
from fieldscope.agent.types import Call
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import CacheMissError, LMMServerError

REQUEST = LMMRequest(messages=(Message(content=(TextPart(text="which? as json."),)),), max_tokens=64)
GOOD = '{"answers": ["yes", "no"]}'
SYNTHESIS: dict[str, Any] = {
    "thought": "crabs.",
    "core": "a crab",
    "detailed": "a red crab",
    "comprehensive": "a red crab on a beach",
    "instructions": [{"text": "a crab", "words": "crab", "type": "addition"}],
}
PREDICATE = {"question": "is there a crab?", "expected": "yes", "words": "crab", "type": "subject"}


def in_turn(*answers: Answer) -> ScriptedLMM:
    """Answers one after the other."""
    left = iter(answers)
    return ScriptedLMM(lambda _: next(left))


async def asked(
    lmm: ScriptedLMM | BudgetedLMM, repairs: int = 1
) -> tuple[AnswersAnswer | None, tuple[Call, ...], str | None]:
    said = await ask_structured(lmm, REQUEST, AnswersAnswer, repairs, "joint")
    return said.value, said.calls, said.error


@pytest.mark.parametrize("model", [SynthesisAnswer, PredicatesAnswer, AnswersAnswer])
def test_a_schema_is_plain_and_closed(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    assert "$" not in json.dumps(schema)
    objects = [schema]
    while objects:
        node = objects.pop()
        if node["type"] == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
            objects += node["properties"].values()
        objects += [node["items"]] if "items" in node else []


def test_keys_are_written_in_their_order() -> None:
    synthesis, predicates = SynthesisAnswer.model_json_schema(), PredicatesAnswer.model_json_schema()
    assert list(synthesis["properties"]) == ["thought", "core", "detailed", "comprehensive", "instructions"]
    assert list(synthesis["properties"]["instructions"]["items"]["properties"]) == ["text", "words", "type"]
    question = predicates["properties"]["predicates"]["items"]["properties"]
    assert list(question) == ["question", "expected", "words", "type"]
    assert question["expected"] == {"type": "string", "enum": ["yes", "no"]}
    assert {"type": "string"} == question["words"] == synthesis["properties"]["thought"]
    assert AnswersAnswer.model_json_schema()["properties"]["answers"]["maxItems"] == MAX_ENTRIES


def test_what_cannot_change_the_meaning_is_forgiven() -> None:
    odd = {**PREDICATE, "question": " is there\na crab? ", "expected": "YES.", "type": "Color"}
    (read,) = PredicatesAnswer.model_validate({"predicates": [odd]}).predicates
    assert (read.question, read.expected, read.type) == ("is there a crab?", "yes", "colour")
    (unheard_of,) = PredicatesAnswer.model_validate({"predicates": [PREDICATE | {"type": "mood"}]}).predicates
    assert unheard_of.type == "other"
    instruction = {"text": "a crab", "words": "", "type": "Removal"}
    read_synthesis = SynthesisAnswer.model_validate(SYNTHESIS | {"instructions": [instruction]})
    assert read_synthesis.instructions[0].type == "removal"


@pytest.mark.parametrize(
    "wrong",
    [
        {**SYNTHESIS, "core": ""},
        {**SYNTHESIS, "core": "crab " * 500},
        {**SYNTHESIS, "core": 3},
        {**SYNTHESIS, "mood": "good"},
        {key: value for key, value in SYNTHESIS.items() if key != "detailed"},
        {**SYNTHESIS, "instructions": []},
        {**SYNTHESIS, "instructions": SYNTHESIS["instructions"] * (MAX_ENTRIES + 1)},
        {**SYNTHESIS, "instructions": [{"text": "a crab", "words": "crab", "type": "hope"}]},
    ],
)
def test_all_else_is_an_error(wrong: dict[str, Any]) -> None:
    SynthesisAnswer.model_validate(SYNTHESIS)
    with pytest.raises(ValidationError):
        SynthesisAnswer.model_validate(wrong)


@pytest.mark.parametrize("expected", ["maybe", "", True, None])
def test_an_expected_answer_is_yes_or_no(expected: object) -> None:
    with pytest.raises(ValidationError):
        PredicatesAnswer.model_validate({"predicates": [PREDICATE | {"expected": expected}]})


@pytest.mark.parametrize(
    "text", [GOOD, f"```json\n{GOOD}\n```", f"Here you are: {GOOD} Is that right?", f"\n\n {GOOD}"]
)
async def test_the_outermost_object_is_read(text: str) -> None:
    lmm = in_turn(text)
    value, calls, error = await asked(lmm)
    assert value is not None
    assert value.answers == ("yes", "no")
    assert error is None
    (call,) = calls
    assert (call.state, call.stage, call.text) == ("answered", "joint", text)
    (request,) = lmm.requests
    assert request.json_schema == AnswersAnswer.model_json_schema()
    assert call.request_key == request.key("scripted")
    assert call.prompt_tokens == 3


@pytest.mark.parametrize(
    "text",
    [
        f"{{the user wants json}} {GOOD} {{done}}",
        f"{{}} {{x: 1}} {GOOD}",
        f'{{"answers": ["yes", "{GOOD}',
        f'{{"thought": {{"answers": []}}}} {GOOD} {{"answers"',
        f'{{"result": {GOOD}}}',
        f"{GOOD}\n\nOnce more: {GOOD}",
        f"{{{{{GOOD}}}}}",
        f"set S = {{1, 2}}, so {GOOD}, where S is {{3}}",
    ],
)
async def test_the_object_is_found_among_braces(text: str) -> None:
    value, _, error = await asked(in_turn(text), 0)
    assert value is not None, error
    assert value.answers == ("yes", "no")


async def test_two_answers_that_differ_are_none() -> None:
    value, _, error = await asked(in_turn(f'{GOOD} no: {{"answers": ["no", "no"]}}'), 0)
    assert (value, error) == (None, "it holds several answers that differ")


async def test_the_fault_is_that_of_the_object_and_not_of_the_braces_around_it() -> None:
    value, _, error = await asked(in_turn('{so} {"answers": ["perhaps"]} {x}'), 0)
    assert value is None
    assert error is not None
    assert error.startswith("answers.0: Input should be 'yes' or 'no'")


@pytest.mark.parametrize("hostile", ["{" * 19_000, '{"a":' * 3_900, '{"a":{}}' * 2_400, "[" * 19_000 + "{"])
async def test_a_text_full_of_braces_is_refused(hostile: str) -> None:
    value, _, error = await asked(in_turn(hostile), 0)
    assert value is None
    assert error is not None
    assert "\n" not in error


async def test_a_wrong_answer_is_shown_to_the_model_with_its_error() -> None:
    lmm = in_turn('{"answers": ["yes", "perhaps"]}', GOOD)
    value, calls, error = await asked(lmm)
    assert value is not None
    assert error is None
    first, second = calls
    assert (first.state, second.state) == ("unknown", "answered")
    assert first.error == "answers.1: Input should be 'yes' or 'no'"
    assert first.text == '{"answers": ["yes", "perhaps"]}'
    assert first.request_key != second.request_key
    original, said, wrong = lmm.requests[1].messages
    assert (original,) == REQUEST.messages
    assert (said.role, said.content) == ("assistant", (TextPart(text=first.text),))
    assert wrong.role == "user"
    assert first.error in lmm.requests[1].text
    assert lmm.requests[1].json_schema == lmm.requests[0].json_schema


@pytest.mark.parametrize("repairs", [0, 1, 3])
async def test_repairs_come_to_an_end(repairs: int) -> None:
    lmm = ScriptedLMM(lambda _: "no idea")
    value, calls, error = await asked(lmm, repairs)
    assert value is None
    assert [call.state for call in calls] == ["unknown"] * (repairs + 1)
    assert len(lmm.requests) == repairs + 1
    assert error == "; then ".join(["there is no JSON object in it"] * (repairs + 1))


async def test_a_call_that_fails_is_not_repeated() -> None:
    lmm = in_turn(LMMServerError("status 500"))
    value, (call,), error = await asked(lmm, 3)
    assert value is None
    assert (call.state, call.error, error) == ("unknown", "status 500", "status 500")


async def test_a_budget_ends_it_at_once() -> None:
    lmm = in_turn("no idea")
    value, calls, error = await asked(BudgetedLMM(lmm, Account(Budget(max_calls=1))), 3)
    assert value is None
    assert [call.state for call in calls] == ["unknown", "not_asked"]
    assert error == "there is no JSON object in it; then the budget of 1 calls is spent"
    assert len(lmm.requests) == 1


async def test_an_answer_that_was_cut_off_says_so() -> None:
    cut = LMMResponse(text='{"answers": ["yes", "n', finish_reason="length")
    _, (call,), error = await asked(in_turn(cut), 0)
    assert error is not None
    assert error.startswith("it was cut off for its length; Invalid JSON")
    assert call.error == error


async def test_a_runaway_answer_is_an_error_and_no_flood() -> None:
    lmm = in_turn('{"answers": [' + '"yes", ' * LONGEST, "{" * 300 + "}" * 300)
    _, calls, error = await asked(lmm)
    assert error is not None
    assert error.startswith(f"it is longer than {LONGEST} characters; then Invalid JSON")
    assert len(calls[0].text) == LONGEST
    assert len(lmm.requests[1].text) < 2 * LONGEST


async def test_a_replay_that_misses_a_call_is_raised() -> None:
    replay = CachedLMM(ScriptedLMM({}), MemoryStore(), "replay")
    with pytest.raises(CacheMissError):
        await ask_structured(replay, REQUEST, AnswersAnswer, 1, "joint")


@given(
    st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
async def test_garbage_never_raises(said: object) -> None:
    text = said if isinstance(said, str) else json.dumps({"answers": said})
    value, calls, error = await asked(ScriptedLMM(lambda _: text))
    assert (value is None) == (error is not None)
    assert (calls[-1].state == "answered") == (value is not None)
    if value is not None:
        assert set(value.answers) <= {"yes", "no"}

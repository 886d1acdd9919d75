"""Bodies as servers write them: what is read, what is passed over, and which error the rest is."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.lmm.completion import read_completion, read_models, read_oddities
from fieldscope.agent.lmm.thinking import answer_start, split_thought
from fieldscope.agent.lmm.yes_no import p_yes
from fieldscope.core.errors import (
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
)

REQUEST = LMMRequest(messages=(Message(content=(TextPart(text="?"),)),), top_logprobs=20, max_tokens=64)


def read(body: Any, **options: Any) -> LMMResponse:
    return read_completion(json.dumps(body), REQUEST.model_copy(update=options), 0.5)


def body(
    text: Any, *tokens: tuple[str, dict[str, Any] | None], usage: Any = None, said: Any = None, **fields: Any
) -> dict[str, Any]:
    """A completion with these tokens, each with its alternatives."""
    content = [
        {"token": token, "logprob": (top or {}).get(token), "top_logprobs": spelled(top)} for token, top in tokens
    ]
    choice = {"message": {"content": text, **(said or {})}, "logprobs": {"content": content}, **fields}
    return {"choices": [choice], "usage": usage}


def spelled(top: dict[str, Any] | None) -> Any:
    return None if top is None else [{"token": token, "logprob": value} for token, value in top.items()]


YES = {"Yes": -0.4, "No": -1.5, "The": -3.0}


# Errors with status 200


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "busy", "code": 429}, LMMRateLimitError),
        ({"message": "busy", "code": "429"}, LMMRateLimitError),
        ({"message": "busy", "code": "rate_limit_exceeded"}, LMMRateLimitError),
        ({"message": "busy", "type": "overloaded_error"}, LMMServerError),
        ({"message": "busy", "code": 502}, LMMServerError),
        ({"message": "busy", "code": 502.0}, LMMServerError),
        ({"message": "busy", "type": "InternalServerError", "code": None}, LMMServerError),
        ({"message": "busy", "status": 408}, LMMConnectionError),
        ({"message": "busy", "code": 400}, LMMRequestError),
        ({"message": "busy", "type": "BadRequestError"}, LMMRequestError),
        ({"message": "busy", "code": 0}, LMMResponseError),
        ({"message": "busy", "code": "nan"}, LMMResponseError),
        ({"message": "busy"}, LMMResponseError),
        ({"detail": "busy"}, LMMResponseError),
        ("busy", LMMResponseError),
        (["busy"], LMMResponseError),
    ],
)
def test_an_error_in_the_body_is_the_error_that_it_names(error: Any, kind: type[LMMError]) -> None:
    for document in ({"error": error}, {"choices": [{"error": error, "message": {"content": "Yes"}}]}):
        with pytest.raises(kind, match="busy") as caught:
            read(document)
        assert type(caught.value) is kind and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, LMMRequestError),
        ({"detail": "too long"}, LMMResponseError),
        ({"error": None, "choices": [{"error": None, "finish_reason": "error", "message": {}}]}, LMMServerError),
    ],
)
def test_other_forms_of_errors(document: Any, kind: type[LMMError]) -> None:
    with pytest.raises(kind):
        read(document)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": None, "said": {"refusal": "I won't.\nNo."}}, "refused to answer: I won't. No."),
        ({"text": [{"type": "refusal", "refusal": "I won't."}]}, "refused to answer: I won't."),
        ({"text": "Yes", "finish_reason": "content_filter"}, "content filter stopped the answer"),
        ({"text": "", "finish_reason": {"type": "content_filter"}}, "content filter stopped the answer"),
    ],
)
def test_refusals_and_filters_are_called_by_their_names(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(LMMResponseError) as caught:
        read(body(fields.pop("text"), ("Yes", YES), **fields))
    assert words in str(caught.value) and "\n" not in str(caught.value)


# Fields of another shape


@pytest.mark.parametrize(
    "odd",
    [
        body("Yes", ("Yes", YES), usage={"prompt_tokens": "many", "completion_tokens": -3}),
        body("Yes", ("Yes", YES), usage=[]),
        body([{"type": "text", "text": "Ye"}, "s"], ("Yes", YES)),
        body({"type": "text", "text": "Yes"}, ("Yes", YES)),
        body("Yes", ("Yes", YES), finish_reason={"type": "stop"}),
        body("Yes", ("Yes", YES), finish_reason=7),
        body("Yes", ("Yes", YES), said={"reasoning": None, "refusal": "", "reasoning_content": ["x"]}),
        body("Yes", ("Yes", YES), ("</s>", None)),
        body("Yes", ("", None), ("\n", YES), ("Yes", YES)),
        body("Yes", ("▁Yes", {"▁Yes" if token == "Yes" else token: value for token, value in YES.items()})),
        body("Yes", ("Yes", {**YES, "odd": "x"})),
    ],
)
def test_an_odd_field_costs_itself_alone(odd: dict[str, Any]) -> None:
    response = read(odd)
    assert response.text == "Yes"
    assert p_yes(response.answer_logprobs).p_yes == pytest.approx(1 / (1 + math.exp(-1.1)))
    assert response.usage.prompt_tokens == 0 and response.finish_reason == "stop"


def test_fractions_of_tokens_are_counted_up() -> None:
    usage = read(body("Yes", ("Yes", YES), usage={"prompt_tokens": 70.5, "completion_tokens": 1.0})).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (71, 1)


def test_null_for_the_alternatives_leaves_the_token_that_was_written() -> None:
    document = body("Yes", ("Yes", YES))
    document["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = None
    assert [(each.token, each.logprob) for each in read(document).answer_logprobs] == [("Yes", -0.4)]


def test_a_hole_that_may_hide_much_ends_the_list_there() -> None:
    top = {"Yes": -0.9, "x": None, "No": -3.0}
    assert [each.token for each in read(body("Yes", ("Yes", top))).answer_logprobs] == ["Yes"]
    top = {"Yes": -0.05, "No": -3.2, "x": math.nan, "y": -9.0}
    assert [each.token for each in read(body("Yes", ("Yes", top))).answer_logprobs] == ["Yes", "No", "y"]
    unsorted = {"No": -3.0, "x": None, "Yes": -0.9}
    with pytest.raises(LMMResponseError, match="no log-probability"):
        read(body("Yes", ("Yes", unsorted)))


def test_a_hole_where_the_written_token_stands_is_that_token() -> None:
    document = body("Yes", ("Yes", YES))
    document["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0] = None
    assert [each.token for each in read(document).answer_logprobs] == ["Yes", "No", "The"]


def test_ids_tell_tokens_of_one_spelling_apart() -> None:
    document = body("Yes", ("Yes", {}))
    twice = [{"token": "Yes", "logprob": -1.5, "id": number} for number in (1, 2, 2)]
    document["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [*twice, {"token": "No", "logprob": -1.5}]
    assert p_yes(read(document).answer_logprobs).p_yes == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ({"data": [{"id": "a"}, None, {"name": "b"}, {"id": "c"}]}, ["a", "c"]),
        ([{"id": "a"}], ["a"]),
        ({"data": []}, []),
        ({"data": None}, None),
        ({"data": ["a"]}, None),
        ({}, None),
        (None, None),
        ("a", None),
    ],
)
def test_an_odd_list_of_models_names_what_can_be_read(listed: Any, names: list[str] | None) -> None:
    assert read_models(json.dumps(listed)) == names


def test_oddities_are_named_once_and_an_honest_body_has_none() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    assert read_oddities(json.dumps(body("Yes", ("Yes", YES), usage=usage))) == []
    odd = read_oddities(json.dumps(body(["Yes"], ("Yes", None), ("</s>", None))))
    assert odd == ["usage is missing", "content comes in parts", "top_logprobs is null"]


# Thinking


def thinking(content: str, thought: list[str], answer: list[str], **said: Any) -> dict[str, Any]:
    no = {"No": -0.1, "Yes": -3.0}
    return body(content, *((t, {t: -0.2, **no}) for t in thought), *((t, YES) for t in answer), said=said)


@pytest.mark.parametrize(
    "document",
    [
        thinking("Yes", ["<think>", "No", " way", "</think>", "\n\n"], ["Yes"], reasoning="No way"),
        thinking("\n\nYes", ["No", " way", "</think>", "\n\n"], ["Yes", "<|im_end|>"], reasoning_content="No way"),
        thinking("Yes.", ["No", " way"], ["Yes", "."], reasoning="No way"),
        thinking("Yes", [], ["Yes"], reasoning="No way"),
        thinking("<think>No way</think>Yes", ["<think>", "No", " way", "</think>"], ["Yes"]),
        thinking("No way</think>Yes", ["No", " way", "</", "think", ">"], ["Yes"]),
        thinking("[THINK]No[/THINK]Yes", ["[THINK]", "No", "[/THINK]"], ["Yes"]),
        thinking(
            "Yes",
            [
                "<|channel|>",
                "analysis",
                "<|message|>",
                "No",
                "<|end|>",
                "<|start|>",
                "assistant",
                "<|channel|>",
                "final",
                "<|message|>",
            ],
            ["Yes", "<|return|>"],
            reasoning="No",
        ),
        thinking("<think></think>Yes", ["<think>", "</think>"], ["Yes"]),
    ],
)
@pytest.mark.parametrize("answer_after", [None, "</think>"])
def test_the_answer_is_read_behind_the_thought(document: dict[str, Any], answer_after: str | None) -> None:
    if answer_after and "think" not in str(document):
        answer_after = None
    response = read(document, answer_after=answer_after)
    assert response.text.strip().strip(".") == "Yes"
    assert [each.token for each in response.answer_logprobs] == list(YES)


@pytest.mark.parametrize(
    "document",
    [
        thinking("Yes", ["No", " way"], [], reasoning="No way"),  # those of the thought alone
        thinking("No", ["No", " way", ":", " No"], [], reasoning="No way: No"),
        thinking("No", ["No"], [], reasoning="No way"),  # cut after one: which is it?
        thinking("Yes", ["No"], []),
        thinking("", ["No"], []),
    ],
)
def test_tokens_that_are_not_those_of_the_answer_are_not_read(document: dict[str, Any]) -> None:
    with pytest.raises(LMMResponseError, match=r"not those of the answer.*enable_thinking: false"):
        read(document)


@pytest.mark.parametrize(
    "document",
    [
        thinking("", ["No"], [], reasoning="No way"),
        body(None, ("No", YES), said={"reasoning_content": "No"}, finish_reason="length"),
        thinking("<think>No", ["<think>", "No"], []),
        thinking("<think>a</think><think>b", ["<think>", "a", "</think>", "<think>", "b"], []),
    ],
)
def test_a_thought_without_an_answer_says_how_to_switch_it_off(document: dict[str, Any]) -> None:
    with pytest.raises(LMMResponseError, match=r"still thinking.*enable_thinking: false"):
        read(document)


def test_a_marker_inside_the_thought_is_not_that_of_the_answer() -> None:
    document = thinking(
        "Answer: Yes", ["Answer:", " No", ".", "</think>"], ["Answer", ":", " Yes"], reasoning="Answer: No."
    )
    response = read(document, answer_after="Answer:")
    assert [each.token for each in response.answer_logprobs] == list(YES)


def test_where_an_answer_begins_whatever_stands_around_it() -> None:
    assert answer_start(["**", "Yes", "**"], "**Yes**") == 0
    assert answer_start(["<|assistant|>", "Yes"], "Yes") == 1
    assert answer_start(["</s>"], "") == 0
    assert answer_start(["Yes"], "Yes, there is a crab.") == 0
    assert answer_start(["token_id:42"], "Yes") is None


def test_a_text_without_thinking_is_all_answer() -> None:
    assert split_thought("a < b") == ("", "a < b", True)
    assert split_thought("I think <b>Yes</b>") == ("", "I think <b>Yes</b>", True)

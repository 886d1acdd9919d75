"""What can be used as an answer, whether it is new or remembered."""

from __future__ import annotations

import json
import math

import pytest

from fieldscope.agent.lmm.acceptance import fault
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, Message, TextPart, TokenLogprob
from fieldscope.agent.schemas import AnswersAnswer, PredicatesAnswer

MESSAGES = (Message(content=(TextPart(text="?"),)),)
JUDGED = LMMRequest(messages=MESSAGES, top_logprobs=20)
STRUCTURED = LMMRequest(messages=MESSAGES, max_tokens=64, json_schema=AnswersAnswer.model_json_schema())
OTHER = LMMRequest(messages=MESSAGES, max_tokens=64, json_schema={"type": "object", "required": ["a"]})
PLAIN = LMMRequest(messages=MESSAGES, max_tokens=64)


def said(text: str = "Yes", *values: float, **fields: object) -> LMMResponse:
    spelled = zip(["Yes", "No", "The"], values, strict=False)
    alternatives = tuple(TokenLogprob(token=token, logprob=value) for token, value in spelled)
    return LMMResponse.model_validate({"text": text, "answer_logprobs": alternatives, **fields})


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (JUDGED, said("Yes", -0.1, -2.5)),
        (JUDGED, said("Yes", -0.1)),
        (JUDGED, said("Yes", -0.1, -2.5, finish_reason="length")),
        (JUDGED, said("", -0.1, -2.5)),  # the first token ended it
        (JUDGED, said("Yes", -1e-9, -20.7)),
        (JUDGED, said("Yes", -0.3, -1.5, -9999.0)),
        (JUDGED.model_copy(update={"top_logprobs": 1}), said("Yes", 0.0)),
        (STRUCTURED, said('{"answers": ["yes", "NO."]}')),
        (STRUCTURED, said('{so} ```json\n{"answers": ["yes"]}\n``` {x}')),
        (OTHER, said('{"a": 1}')),
        (PLAIN, said("because of the cra", finish_reason="length")),
        (PLAIN, said("because", finish_reason="eos_token")),
    ],
)
def test_an_honest_answer_is_accepted(request_: LMMRequest, response: LMMResponse) -> None:
    assert fault(request_, response) is None
    again = LMMResponse.model_validate_json(response.model_dump_json())
    assert fault(request_, again) is None


@pytest.mark.parametrize(
    ("request_", "response", "words"),
    [
        (JUDGED, said("Yes"), "no log-probability"),
        (JUDGED, said("Yes", math.nan, -math.inf), "no log-probability"),
        (JUDGED, said("Yes", 0.0, -3.4e38, -3.4e38), "after temperature 0"),
        (JUDGED, said("Yes", 0.0), "after temperature 0"),
        (JUDGED, said("Yes", 0.0, 0.0, 0.0), "sum to 3.00"),  # probabilities, as they were once remembered
        (JUDGED, said("Yes", -0.22, -0.52), "base-10"),
        (JUDGED, said("Yes", -0.1, -2.5, finish_reason="content_filter"), "content filter"),
        (PLAIN, said("because", finish_reason="SAFETY"), "content filter"),
        (PLAIN, said(" \n"), "empty"),
        (STRUCTURED, said('{"answers": ["yes", "n', finish_reason="length"), "as JSON"),
        (STRUCTURED, said("I can't tell."), "no JSON object"),
        (STRUCTURED, said('{"answers": ["perhaps"]}'), "as JSON"),
        (STRUCTURED, said('{"answers": ["yes"]} or {"answers": ["no"]}'), "several answers"),
        (STRUCTURED, said('{"answers": [' + '"yes", ' * 20_000), "longer than"),
        (STRUCTURED.model_copy(update={"json_schema": PredicatesAnswer.model_json_schema()}), said("{}"), "as JSON"),
        (OTHER, said("a: 1"), "no JSON object"),
    ],
)
def test_what_is_no_answer_says_why(request_: LMMRequest, response: LMMResponse, words: str) -> None:
    told = fault(request_, response)
    assert told is not None and words in told and "\n" not in told


def test_a_schema_is_known_by_what_it_says_and_not_by_its_keys_order() -> None:
    shuffled = json.loads(json.dumps(AnswersAnswer.model_json_schema(), sort_keys=True))
    assert fault(STRUCTURED.model_copy(update={"json_schema": shuffled}), said('{"answers": ["perhaps"]}')) is not None

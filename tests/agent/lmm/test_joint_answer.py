"""P(yes) of each answer in a structured answer, wherever the tokenizer cuts it, and however the server writes it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fieldscope.agent.lmm.acceptance import fault
from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, Message, TextPart, TokenLogprob
from fieldscope.agent.lmm.completion import read_completion
from fieldscope.agent.lmm.joint_answer import read_answers
from fieldscope.agent.schemas import AnswersAnswer

PLAIN = LMMRequest(messages=(Message(content=(TextPart(text="?"),)),), max_tokens=64)
REQUEST = PLAIN.model_copy(
    update={"top_logprobs": 5, "logprobs_of": "all", "json_schema": AnswersAnswer.model_json_schema()}
)
TEXT = '{"answers": ["yes", "no", "yes"]}'
P = (0.9, 0.2, 0.6)

CUTS = {
    "a word is a token": ['{"', "answers", '":', ' ["', "yes", '",', ' "', "no", '",', ' "', "yes", '"]}'],
    "a quotation mark and a word are one": ['{"answers":', " [", '"yes', '",', ' "no', '",', ' "yes', '"]}'],
    "a word and its quotation mark are one": ['{"answers": ["', 'yes"', ', "', 'no"', ', "', 'yes"', "]}"],
    "a bracket belongs to it": ['{"answers": ', '["yes"', ", ", '"no"', ", ", '"yes"', "]}"],
    "white space is written as sentencepiece does": [
        '{"answers":',
        '▁["',
        "yes",
        '",',
        '▁"',
        "no",
        '",',
        '▁"yes',
        '"]}',
    ],
    "words come in pieces": ['{"answers": ["', "y", 'es"', ', "', "n", 'o"', ', "', "ye", "s", '"]}'],
    "a fence stands around it": ["```json\n", '{"answers": ["', "yes", '", "', "no", '", "', "yes", '"]}', "\n```"],
}


def token(piece: str, p: float) -> dict[str, Any]:
    """A token as a server writes it: for one that holds a word of an answer, or begins it, P(yes) is `p`."""
    letters = "".join(filter(str.isalpha, piece))
    sides = {"yes": "no", "no": "yes", "y": "n", "n": "y", "ye": "no"}
    if letters not in sides:
        return {"token": piece, "logprob": 0.0, "top_logprobs": [{"token": piece, "logprob": 0.0}]}
    other = piece.replace(letters, sides[letters])
    share = p if letters.startswith("y") else 1 - p
    both = [{"token": piece, "logprob": math.log(share)}, {"token": other, "logprob": math.log(1 - share)}]
    return {"token": piece, "logprob": both[0]["logprob"], "top_logprobs": both}


def tokens_of(pieces: list[str], probabilities: tuple[float, ...] = P) -> list[dict[str, Any]]:
    """Each answer of the list in turn has the next probability."""
    found, answers = [], iter(probabilities)
    for piece in pieces:
        letters = "".join(filter(str.isalpha, piece))
        found.append(token(piece, next(answers) if letters in ("yes", "no", "y", "n", "ye") else 0.0))
    return found


def completed(pieces: list[str], **message: Any) -> str:
    content = message.pop("content", "".join(pieces).replace("▁", " "))
    choice = {"message": {"content": content, **message}, "logprobs": {"content": tokens_of(pieces)}}
    return json.dumps({"choices": [choice]})


def probabilities(response: LMMResponse) -> list[float]:
    answers = json.loads(response.text[response.text.index("{") : response.text.rindex("}") + 1])["answers"]
    return [reading.p_yes or math.nan for reading in read_answers(response.tokens, answers)]


@pytest.mark.parametrize("cut", CUTS)
def test_each_answer_is_read_at_its_own_place(cut: str) -> None:
    response = read_completion(completed(CUTS[cut]), REQUEST, 0.1)
    assert probabilities(response) == pytest.approx(list(P), abs=1e-6)
    assert fault(REQUEST, response) is None


def test_a_thought_is_no_place_of_an_answer() -> None:
    thought = ["<think>", '{"answers": ["', "no", '", "', "no", '", "', "no", '"]}', "</think>"]
    pieces = CUTS["a word is a token"]
    tokens = tokens_of(thought, (0.01, 0.01, 0.01)) + tokens_of(pieces)
    parser = {"content": TEXT, "reasoning_content": "".join(thought[1:-1])}
    for message in ({"content": "".join(thought) + TEXT}, parser):
        body = {"choices": [{"message": message, "logprobs": {"content": tokens}}]}
        assert probabilities(read_completion(json.dumps(body), REQUEST, 0.1)) == pytest.approx(list(P), abs=1e-6)


def test_one_answer_that_cant_be_read_is_unknown_and_no_other() -> None:
    tokens = list(read_completion(completed(CUTS["a word is a token"]), REQUEST, 0.1).tokens)
    place = next(index for index, each in enumerate(tokens) if each.text == "no")
    elsewhere = (TokenLogprob(token="perhaps", logprob=-0.01), TokenLogprob(token="no", logprob=-6.0))
    tokens[place] = tokens[place].model_copy(update={"alternatives": elsewhere})
    first, second, third = read_answers(tokens, ["yes", "no", "yes"])
    assert (first.state, second.state, third.state) == ("answered", "unknown", "answered")
    assert second.reason and "perhaps" in second.reason


def test_numbers_that_are_no_log_probabilities_are_a_fault_where_an_answer_stands_and_nowhere_else() -> None:
    response = read_completion(completed(CUTS["a word is a token"]), REQUEST, 0.1)
    tokens = list(response.tokens)
    assert tokens[0].alternatives == (TokenLogprob(token='{"', logprob=0.0),)  # a grammar leaves one token here
    place = next(index for index, each in enumerate(tokens) if each.text == "yes")
    positive = (TokenLogprob(token="yes", logprob=0.9), TokenLogprob(token="no", logprob=0.1))
    tokens[place] = tokens[place].model_copy(update={"alternatives": positive})
    wrong = response.model_copy(update={"tokens": tuple(tokens)})
    assert "probabilities" in (fault(REQUEST, wrong) or "")
    assert read_answers(tokens, ["yes", "no", "yes"])[0].state == "unknown"


def test_answers_without_tokens_are_unknown_and_never_kept() -> None:
    bare = LMMResponse(text=TEXT)
    assert [reading.state for reading in read_answers((), ["yes", "no", "yes"])] == ["unknown"] * 3
    assert "no log-probability" in (fault(REQUEST, bare) or "")
    other = [AnswerToken(text='{"answers": ["no"]}', logprob=None, alternatives=())]
    assert read_answers(other, ["yes"])[0].state == "unknown"


def test_of_two_equal_lists_the_first_counts() -> None:
    pieces = CUTS["a word is a token"]
    again = tokens_of(pieces, (0.99, 0.01, 0.99))
    body = {
        "choices": [{"message": {"content": f"{TEXT}\n{TEXT}"}, "logprobs": {"content": tokens_of(pieces) + again}}]
    }
    response = read_completion(json.dumps(body), REQUEST, 0.1)
    readings = read_answers(response.tokens, ["yes", "no", "yes"])
    assert [reading.p_yes for reading in readings] == pytest.approx(list(P), abs=1e-6)


def test_a_request_for_the_first_token_has_the_key_that_it_always_had() -> None:
    assert PLAIN.model_copy(update={"logprobs_of": "first"}).key("m") == PLAIN.key("m")
    assert PLAIN.model_copy(update={"logprobs_of": "all"}).key("m") != PLAIN.key("m")

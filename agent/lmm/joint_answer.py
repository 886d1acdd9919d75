"""P(yes) of each answer of a structured answer, from the log-probabilities at its own place in the text.

The tokens of the answer are mapped to its characters by their lengths, since a quotation mark and a word may be one
token, and a word may be several. At its place an answer is read as a single one is, under the same rules.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterator, Sequence

from fieldscope.agent.lmm.base import AnswerToken, LMMResponse
from fieldscope.agent.lmm.json_text import read_json
from fieldscope.agent.lmm.logprobs import logprobs_fault
from fieldscope.agent.lmm.thinking import SPACES
from fieldscope.agent.lmm.yes_no import YesNo, finish_words, p_yes, word
from fieldscope.agent.schemas import AnswersAnswer

# Where the answer begins behind a thought, its first token may be one of those that hold no letter, and be cut off.
_LIST = re.compile(r'answers"\s*:\s*\[((?:\s*"[^"\\]*"\s*,?)*)\s*\]')
_STRING = re.compile(r'"([^"\\]*)"')
_LOST = YesNo("unknown", reason="the answer was not found among the tokens that came with log-probabilities")


def read_answers(tokens: Sequence[AnswerToken], answers: Sequence[str]) -> list[YesNo]:
    """A reading of each of the `answers` ("yes" or "no") that the `tokens` write as JSON, in order. One that can't be
    read is `unknown`, with the reason."""
    places = answer_places(tokens, answers)
    if places is None:
        return [_LOST] * len(answers)
    return [p_yes(finish_words(tokens[place].alternatives, _written(tokens[place:]))) for place in places]


def answers_fault(response: LMMResponse, asked: int) -> str | None:
    """Why the log-probabilities of a structured answer can't be those of the model, None where they can. `asked` is how
    many alternatives were asked for. Elsewhere than at the answers a grammar may leave one token, and so no doubt."""
    if not response.tokens:
        return logprobs_fault(())
    try:
        answers = read_json(response.text, AnswersAnswer).answers
    except ValueError:
        return None  # there is no answer to read, which is another fault
    places = answer_places(response.tokens, answers) or ()
    faults = (logprobs_fault(response.tokens[place].alternatives, asked) for place in places)
    return next(filter(None, faults), None)


def answer_places(tokens: Sequence[AnswerToken], answers: Sequence[str]) -> list[int] | None:
    """The index of the token that each answer's word begins in; None where the tokens do not write these answers. Of
    several equal lists the first counts: the others repeat it."""
    pieces = [token.text.translate(SPACES) for token in tokens]
    text = "".join(pieces)
    ends: list[int] = []
    for piece in pieces:
        ends.append((ends[-1] if ends else 0) + len(piece))
    for found in _LIST.finditer(text):
        said = list(_STRING.finditer(text, *found.span(1)))
        if [word(each[1]) for each in said] == list(answers):
            return [next(i for i, end in enumerate(ends) if end > _start(each)) for each in said]
    return None


def _start(said: re.Match[str]) -> int:
    """Where the word in a string begins."""
    return said.start(1) + len(said[1]) - len(said[1].lstrip(string.whitespace + string.punctuation))


def _written(tokens: Sequence[AnswerToken]) -> Iterator[tuple[str, float]]:
    for token in tokens:
        yield token.text, math.nan if token.logprob is None else token.logprob

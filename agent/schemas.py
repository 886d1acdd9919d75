"""The JSON that a model answers with: its schema, as a server gets it, and how it is read.

What can't change the meaning is forgiven: the case of a yes, a no and a type, spaces, and an unknown type of
question. All else is an error that a model can be shown: keys that are missing or unknown, empty descriptions, and more
entries or longer texts than any request needs.
"""

from __future__ import annotations

import string
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from fieldscope.agent.types import Operation

Kind = Literal[
    "subject", "colour", "count", "behaviour", "context", "habitat", "weather", "absence", "comparison", "other"
]
"""What a predicate asks about."""

MAX_ENTRIES = 64
_THOUGHT = 4000  # characters, as below
_DESCRIPTION = 1000
_PHRASE = 300

# What is left of a JSON schema for the server. Limits on lengths are not: not every server knows them.
_KEYWORDS = ("type", "enum", "required", "additionalProperties", "minItems", "maxItems")
_SPELLINGS = {"color": "colour", "behavior": "behaviour"}


def _line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _word(value: Any) -> Any:
    return value.strip(string.whitespace + string.punctuation).casefold() if isinstance(value, str) else value


def _kind(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word = _SPELLINGS.get(_word(value), _word(value))
    return word if word in get_args(Kind) else "other"


YesNo = Annotated[Literal["yes", "no"], BeforeValidator(_word)]
_Phrase = Annotated[str, BeforeValidator(_line), Field(min_length=1, max_length=_PHRASE)]
_Words = Annotated[str, BeforeValidator(_line), Field(max_length=_PHRASE)]
_Description = Annotated[str, BeforeValidator(_line), Field(min_length=1, max_length=_DESCRIPTION)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The shape alone, keys in the order in which they are to be written, and without references: some servers
        can't follow those."""
        return deepcopy(_shape(cls))


class InstructionAnswer(_Answer):
    """One atomic instruction."""

    text: _Phrase
    words: _Words
    type: Annotated[Operation, BeforeValidator(_word)]


class SynthesisAnswer(_Answer):
    """The answer to a prompt whose `answer` is `synthesis`."""

    thought: Annotated[str, BeforeValidator(_line), Field(max_length=_THOUGHT)]
    core: _Description
    detailed: _Description
    comprehensive: _Description
    instructions: Annotated[tuple[InstructionAnswer, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


class PredicateAnswer(_Answer):
    """One question and the answer that a match must give."""

    question: _Phrase
    expected: YesNo
    words: _Words
    type: Annotated[Kind, BeforeValidator(_kind)]


class PredicatesAnswer(_Answer):
    """The answer to a prompt whose `answer` is `predicates`."""

    predicates: Annotated[tuple[PredicateAnswer, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


class AnswersAnswer(_Answer):
    """The answer to a prompt whose `answer` is `answers`: one for each question, in order."""

    answers: Annotated[tuple[YesNo, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


class StatedAnswer(_Answer):
    """The answer to a prompt whose `answer` is `probability`: how probable it is that the answer is yes, 0 to 1."""

    probability: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


@cache
def _shape(model: type[_Answer]) -> dict[str, Any]:
    """The schema of a kind of answer; each question names it, and pydantic takes 5 ms to write it."""
    schema = TypeAdapter(model).json_schema()
    return _inline(schema, schema.get("$defs", {}))


def _inline(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    shape: dict[str, Any] = {keyword: node[keyword] for keyword in _KEYWORDS if keyword in node}
    if "properties" in node:
        shape["properties"] = {name: _inline(value, definitions) for name, value in node["properties"].items()}
    if "items" in node:
        shape["items"] = _inline(node["items"], definitions)
    return shape

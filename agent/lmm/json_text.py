"""The JSON object in a model's answer, whatever stands before and behind it."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

LONGEST = 20_000
"""Characters. A longer answer has run away, and is not read."""

_MOST_OBJECTS = 100
_SHOWN_FAULTS = 3
_DECODER = json.JSONDecoder()

AnswerT = TypeVar("AnswerT", bound=BaseModel)


def read_json(text: str, schema: type[AnswerT]) -> AnswerT:
    """The object of this schema among all that stands in braces. Raises `ValueError`, in words that help the model to
    correct its answer, where there is none, and where there are two that differ."""
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no JSON object in it")
    outermost = text[start : text.rfind("}") + 1] or text[start:]
    answers: list[AnswerT] = []
    faults: dict[str, str] = {}
    while start >= 0 and len(faults) < _MOST_OBJECTS:
        piece = _object(text, start)
        answer, fault = _validated(piece, schema) if piece else (None, "")
        if answer is not None:
            answers.append(answer)
        elif len(piece) > len("{}"):
            faults[piece] = fault
        start = text.find("{", start + (len(piece) if answer is not None else 1))  # an answer may lie in a wrapper
    if not answers:
        longest = max(faults, key=len, default=outermost)
        raise ValueError(faults.get(longest) or _validated(longest, schema)[1])
    if any(answer != answers[0] for answer in answers):
        raise ValueError("it holds several answers that differ")
    return answers[0]


def _object(text: str, start: int) -> str:
    """The JSON object that begins there; empty where none does."""
    try:
        _, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return ""
    return text[start:end]


def _validated(piece: str, schema: type[AnswerT]) -> tuple[AnswerT | None, str]:
    """The object, or what is wrong with it."""
    try:
        return schema.model_validate_json(piece), ""
    except ValidationError as error:
        return None, _faults(error)


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    shown = []
    for fault in faults[:_SHOWN_FAULTS]:
        place = ".".join(map(str, fault["loc"]))
        shown.append(f"{place}: {fault['msg']}" if place else fault["msg"])
    more = f"; and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    return "; ".join(shown) + more

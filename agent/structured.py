"""A question whose answer is JSON: asked with its schema, always validated, and mended in a few rounds or given up."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from agent.asking import ask
from agent.lmm.base import LMM, LMMRequest, LMMResponse, Message, TextPart
from agent.lmm.completion import one_line
from agent.lmm.json_text import LONGEST, read_json
from agent.types import Call

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Structured(NamedTuple, Generic[AnswerT]):
    """`value` is the answer, None where there is none to use, and then `error` says why; `calls` is all it took."""

    value: AnswerT | None
    calls: tuple[Call, ...]
    error: str | None


async def ask_structured(
    lmm: LMM, request: LMMRequest, schema: type[AnswerT], repairs: int, stage: str
) -> Structured[AnswerT]:
    """Ask for a `schema`. An answer that can't be read is shown to the model with its error, at most `repairs` times.

    A call that failed is not repeated: the door to the model has tried that already. Raises what `ask` raises.
    """
    request = request.model_copy(update={"json_schema": schema.model_json_schema()})
    calls: list[Call] = []
    faults: list[str] = []
    for _ in range(repairs + 1):
        answer = await ask(lmm, request)
        if answer.response is None:
            calls.append(Call(stage=stage, **answer.asked))
            faults.append(answer.error or answer.state)
            break
        text = answer.response.text[:LONGEST]
        try:
            value = _read(answer.response, schema)
        except ValueError as error:
            fault = one_line(error)
            calls.append(Call(stage=stage, text=text, **answer.asked | {"state": "unknown", "error": fault}))
            faults.append(fault)
            request = _with_fault(request, text, fault)
        else:
            calls.append(Call(stage=stage, text=text, **answer.asked))
            return Structured(value, tuple(calls), None)
    return Structured(None, tuple(calls), "; then ".join(faults))


def _read(response: LMMResponse, schema: type[AnswerT]) -> AnswerT:
    """The answer in a response. Raises `ValueError`, in words that help to correct it."""
    try:
        return read_json(response.text, schema)
    except ValueError as error:
        cut = "it was cut off for its length; " if response.finish_reason == "length" else ""
        raise ValueError(f"{cut}{error}") from error


def _with_fault(request: LMMRequest, text: str, fault: str) -> LMMRequest:
    """The conversation goes on: what the model said, and what is wrong with it."""
    said = Message(role="assistant", content=(TextPart(text=text),))
    wrong = Message(content=(TextPart(text=f"the answer was not right json: {fault}. answer again as json."),))
    return request.model_copy(update={"messages": (*request.messages, said, wrong)})

"""A question whose answer is JSON: asked with its schema, always validated, and mended in a few rounds or given up."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from agent.asking import Answer, ask
from agent.lmm.base import LMM, LMMRequest, LMMResponse, Message, TextPart
from agent.lmm.completion import one_line
from agent.types import Call
from core.errors import ContextLengthError

LONGEST = 20_000
"""Characters. A longer answer has run away: it is not read, and no more of it is kept."""

_SHOWN_FAULTS = 3

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Structured(NamedTuple, Generic[AnswerT]):
    """`value` is the answer, None where there is none to use, and then `error` says why; `calls` is all it took."""

    value: AnswerT | None
    calls: tuple[Call, ...]
    error: str | None


async def ask_structured(
    lmm: LMM, request: LMMRequest, schema: type[AnswerT], repairs: int, stage: str, *, grows: bool = False
) -> Structured[AnswerT]:
    """Ask for a `schema`. An answer that can't be read is shown to the model with its error, at most `repairs` times.

    A call that failed is not repeated: the door to the model has tried that already. Raises what `ask` raises, but no
    `ContextLengthError` for a request that `grows` with what the model wrote, as every repair does.
    """
    request = request.model_copy(update={"json_schema": schema.model_json_schema()})
    calls: list[Call] = []
    faults: list[str] = []
    for repair in range(repairs + 1):
        try:
            answer = await ask(lmm, request)
        except ContextLengthError as error:
            if not (grows or repair):
                raise
            answer = Answer("unknown", error=one_line(error), request_key=request.key(lmm.identity), refused=True)
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
    """The outermost JSON object, whatever stands around it. Raises `ValueError`, in words that help to mend it."""
    text = response.text
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0:
        raise ValueError("there is no JSON object in it")
    try:
        return schema.model_validate_json(text[start:end] if end > start else text[start:])
    except ValidationError as error:
        cut = "it was cut off for its length; " if response.finish_reason == "length" else ""
        raise ValueError(cut + _faults(error)) from error


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    told = []
    for fault in faults[:_SHOWN_FAULTS]:
        place = ".".join(map(str, fault["loc"]))
        told.append(f"{place}: {fault['msg']}" if place else fault["msg"])
    more = f"; and {len(faults) - len(told)} more" if len(faults) > len(told) else ""
    return "; ".join(told) + more


def _with_fault(request: LMMRequest, text: str, fault: str) -> LMMRequest:
    """The conversation goes on: what the model said, and what is wrong with it."""
    said = Message(role="assistant", content=(TextPart(text=text),))
    wrong = Message(content=(TextPart(text=f"the answer was not right json: {fault}. answer again as json."),))
    return request.model_copy(update={"messages": (*request.messages, said, wrong)})

"""A question whose answer is JSON: sent with its schema, always validated, and repaired in a few rounds or given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from fieldscope.agent.call import Answer, as_sent, ask
from fieldscope.agent.lmm.base import LMM, AnswerToken, LMMRequest, LMMResponse, Message, TextPart, Tokens
from fieldscope.agent.lmm.json_text import LONGEST, read_json
from fieldscope.agent.types import Call
from fieldscope.core.errors import ContextLengthError, one_line
from fieldscope.prompts.forms import DEFAULTS, fill
from fieldscope.prompts.prompt import Prompt

STAGES = ("synthesize", "refine", "decompose", "joint")
"""The stages whose calls are made here."""

_CUT = "it was cut off for its length; "

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class Structured(Generic[AnswerT]):
    """`value` is the answer, None where there is none to use, and then `error` says why; `calls` is all it took.
    `tokens` are those of the answer, where the request asks for the log-probabilities of all of them."""

    value: AnswerT | None
    calls: tuple[Call, ...]
    error: str | None = None
    tokens: tuple[AnswerToken, ...] = ()


async def ask_structured(
    lmm: LMM,
    request: LMMRequest,
    schema: type[AnswerT],
    repairs: int,
    stage: str,
    *,
    grows: bool = False,
    prompt: Prompt | None = None,
) -> Structured[AnswerT]:
    """Ask for a `schema`. An answer that can't be read is shown to the model with its error, at most `repairs` times,
    in the words of the `prompt` that the request was made with.

    A call that failed is not repeated: the model's client has tried that already. Raises what `ask` raises, but no
    `ContextLengthError` for a request that `grows` with what the model wrote, as every repair does.
    """
    request = request.model_copy(update={"json_schema": schema.model_json_schema()})
    calls: list[Call] = []
    faults: list[str] = []
    repair_form = ((prompt and prompt.forms) or {}).get("repair", DEFAULTS["repair"])
    for repair in range(repairs + 1):
        try:
            answer = await ask(lmm, request)
        except ContextLengthError as error:
            if not (grows or repair):
                raise
            key = as_sent(lmm, request).key(lmm.identity)
            answer = Answer("unknown", error=one_line(error), request_key=key, refused=True)
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
            request = _with_fault(request, text, fill(repair_form, {"fault": fault}))
        else:
            calls.append(Call(stage=stage, text=text, **answer.asked))
            return Structured(value, tuple(calls), tokens=answer.response.tokens)
    return Structured(None, tuple(calls), "; then ".join(faults))


def unreadable_answer(call: Call) -> LMMResponse | None:
    """The answer that a call of these stages got and could not read, as its record has it: it leads to the same fault,
    and so to the same repair. None where it got none. Such an answer is not kept in the response cache."""
    if call.stage not in STAGES or call.state != "unknown" or not call.text:
        return None
    fault = call.error or ""
    too_long = len(call.text) == LONGEST and "longer than" in fault
    return LMMResponse(
        text=call.text + (" " if too_long else ""),
        usage=Tokens(prompt_tokens=call.prompt_tokens, completion_tokens=call.completion_tokens),
        finish_reason="length" if fault.startswith(_CUT) else "stop",
        latency=call.latency,
    )


def _read(response: LMMResponse, schema: type[AnswerT]) -> AnswerT:
    """The answer in a response. Raises `ValueError`, in words that help to correct it."""
    try:
        return read_json(response.text, schema)
    except ValueError as error:
        begun = "{" in response.text and len(response.text) <= LONGEST
        raise ValueError(f"{_CUT if begun and response.finish_reason == 'length' else ''}{error}") from error


def _with_fault(request: LMMRequest, text: str, fault: str) -> LMMRequest:
    """The conversation goes on: what the model said, and what is wrong with it."""
    said = Message(role="assistant", content=(TextPart(text=text),))
    wrong = Message(content=(TextPart(text=fault),))
    return request.model_copy(update={"messages": (*request.messages, said, wrong)})

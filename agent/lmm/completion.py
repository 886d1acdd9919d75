"""Reading what an OpenAI-compatible server answered: trust nothing, take what is needed, say what is missing.

The bodies are validated here and not by the openai library, which hands on whatever came, HTML included.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, Field, ValidationError

from agent.lmm.base import LMMRequest, LMMResponse, TokenLogprob, Usage
from agent.lmm.yes_no import answer_position
from core.errors import LMMResponseError


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Position(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Answer(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Answer
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """As much of a chat completion as is read."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _DetailedUsage(BaseModel):
    prompt_tokens_details: _PromptDetails | None = None


class _Detailed(BaseModel):
    """What only some servers tell; apart from `_Completion`, so that no answer is lost over it."""

    usage: _DetailedUsage | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def read_completion(body: str, request: LMMRequest, latency: float) -> LMMResponse:
    """The response in the JSON of a chat completion. Raises `LMMResponseError` for a body that holds no answer, or
    none of the log-probabilities that were asked for."""
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        raise LMMResponseError(f"the server's answer is no chat completion: {_first_fault(error)}") from error
    choice = completion.choices[0]
    finish = choice.finish_reason or "stop"
    if choice.message.content is None:
        raise LMMResponseError(
            f"the server's answer has no text (it ended with {finish!r}): a model that thinks aloud needs more "
            "max_tokens, or its thinking switched off"
        )
    usage = completion.usage or _Usage()
    return LMMResponse(
        text=choice.message.content,
        answer_logprobs=_answer_logprobs(choice.logprobs, request) if request.top_logprobs else (),
        usage=Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens),
        finish_reason=finish,
        latency=latency,
    )


def read_cached_tokens(body: str) -> int | None:
    """How many of the prompt's tokens the server took from its prefix cache; None where it does not say."""
    try:
        usage = _Detailed.model_validate_json(body).usage
    except ValidationError:
        return None
    return usage.prompt_tokens_details.cached_tokens if usage and usage.prompt_tokens_details else None


def read_models(body: str) -> list[str]:
    """The names in the JSON of a model list. Raises `LMMResponseError` for a body that is none."""
    try:
        return [model.id for model in _Models.model_validate_json(body).data]
    except ValidationError as error:
        raise LMMResponseError(f"the server's answer is no list of models: {_first_fault(error)}") from error


def one_line(words: object, longest: int = 240) -> str:
    """Anything as one line of text for an error message; an exception without words by its class."""
    line = " ".join(str(words).split()) or type(words).__name__
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _answer_logprobs(logprobs: _Logprobs | None, request: LMMRequest) -> tuple[TokenLogprob, ...]:
    """The alternatives at the answer's first token; none where the model never came to its answer."""
    if logprobs is None or not logprobs.content:
        raise LMMResponseError(
            "the server returned no log-probabilities: use one that does (vLLM, started with --max-logprobs 20)"
        )
    index = answer_position([position.token for position in logprobs.content], request.answer_after)
    if index is None:
        return ()
    position = logprobs.content[index]
    alternatives = sorted(position.top_logprobs or [position], key=lambda a: -a.logprob)
    return tuple(
        TokenLogprob(token=a.token, logprob=min(a.logprob, 0.0)) for a in alternatives if math.isfinite(a.logprob)
    )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return one_line(f"{place}: {fault['msg']}" if place else fault["msg"])

"""Reading what an OpenAI-compatible server answered: trust nothing, take what is needed, say what is missing.

The bodies are validated here and not by the openai library, which hands on whatever came, HTML included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from fieldscope.agent.lmm.acceptance import was_filtered
from fieldscope.agent.lmm.base import AnswerToken, LMMRequest, LMMResponse, TokenLogprob, Tokens
from fieldscope.agent.lmm.chat_body import Alternative, ChatMessage, Completion, ModelList, Position, passed_over
from fieldscope.agent.lmm.logprobs import gathered, logprobs_fault
from fieldscope.agent.lmm.thinking import SWITCH_OFF, Thought, answer_start, ends_thinking, is_marked, split_thought
from fieldscope.agent.lmm.yes_no import MIN_MASS, answer_position, finish_words
from fieldscope.core.errors import LMMResponseError, LMMServerError, one_line
from fieldscope.core.server_failure import failure_in

_BROKEN_OFF = {"error", "abort"}
"""How servers say that they failed in the middle of an answer."""

_CHECK_ADDRESS = "check that its address is that of an OpenAI-compatible server"
_REWORD = "use other words, or another model"


def read_completion(body: str, request: LMMRequest, latency: float) -> LMMResponse:
    """The response in the JSON of a chat completion.

    Raises the `LMMError` that fits an error in the body, and `LMMResponseError` for a body that holds no answer, or
    none of the log-probabilities that were asked for: none at all, numbers that can't be any, or those of other tokens
    than the answer's.
    """
    completion = _completion(body)
    choice = completion.choices[0]
    said = _said(choice.message, choice.finish)
    counts = completion.usage
    answer: Sequence[Position] = ()
    if request.top_logprobs:
        answer = _answer_positions(choice.logprobs.positions if choice.logprobs else [], said, request)
    every = request.logprobs_of == "all"
    return LMMResponse(
        text=said.answer,
        thought=said.thought.strip(),
        answer_logprobs=() if every else _answer_logprobs(answer, request),
        tokens=tuple(map(_token, answer)) if every else (),
        usage=Tokens(
            prompt_tokens=_count(counts.prompt_tokens if counts else None),
            completion_tokens=_count(counts.completion_tokens if counts else None),
        ),
        finish_reason=choice.finish,
        latency=latency,
    )


def read_cached_tokens(body: str) -> int | None:
    """How many of the prompt's tokens the server took from its prefix cache; None where it does not say."""
    counts = _completion(body).usage
    return counts.prompt_tokens_details.cached_tokens if counts and counts.prompt_tokens_details else None


def read_oddities(body: str) -> list[str]:
    """What in a chat completion is not as the protocol has it, and is passed over."""
    completion = _completion(body)
    odd = list(passed_over(_json(body, "chat completion"), completion))
    choice = completion.choices[0]
    if completion.usage is None:
        odd.append("usage is missing")
    elif any(
        tokens is None or _count(tokens) != tokens
        for tokens in (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    ):
        odd.append("usage holds no whole numbers of tokens")
    if not isinstance(choice.message.content, str):
        odd.append("content comes in parts")
    if choice.finish_reason is not None and not isinstance(choice.finish_reason, str):
        odd.append(f"finish_reason is {type(choice.finish_reason).__name__}")
    positions = choice.logprobs.positions if choice.logprobs else []
    if any(position.top_logprobs is None for position in positions):
        odd.append("top_logprobs is null")
    alternatives = [each for position in positions for each in position.top_logprobs or []]
    if any(each is None or math.isnan(each.value) for each in alternatives):
        odd.append("an alternative is null, or without a number")
    pairs = [(each.token, each.value, each.known_as) for each in alternatives if each is not None]
    if len(positions) == 1 and len(set(pairs)) < len(pairs):
        odd.append("an alternative comes twice")
    if positions and not positions[0].token.strip():
        odd.append("the first token is white space or empty")
    if choice.message.thought or split_thought(choice.message.text or "").thought:
        odd.append("the model thinks before it answers")
    return list(dict.fromkeys(odd))


def read_models(body: str) -> list[str] | None:
    """The names in the JSON of a model list; None where it is JSON and no such list. Raises `LMMResponseError` for
    what is no JSON at all."""
    listed = _json(body, "list of models")
    try:
        models = ModelList.model_validate({"data": listed} if isinstance(listed, list) else listed).data
    except ValidationError:
        return None
    names = [model.id for model in models or [] if model is not None]
    return names if names or models == [] else None


def _completion(body: str) -> Completion:
    """The body. Raises the error that it holds, or `LMMResponseError`."""
    document = _json(body, "chat completion")
    if (failure := failure_in(document)) is not None:
        raise failure
    try:
        return Completion.model_validate(document)
    except ValidationError as error:
        raise LMMResponseError(
            f"the server's answer is no chat completion: {_first_fault(error)}; {_CHECK_ADDRESS}"
        ) from error


def _json(body: str, wanted: str) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        raise LMMResponseError(
            f"the server's answer is no {wanted}: Invalid JSON: {one_line(error)}; {_CHECK_ADDRESS}"
        ) from error


def _said(message: ChatMessage, finish: str) -> Thought:
    """What the model said, apart from what it thought. Raises the error that fits where it said nothing."""
    if was_filtered(finish):
        raise LMMResponseError(
            f"the server's content filter stopped the answer (it ended with {finish!r})"
            + (f": {one_line(message.refused)}" if message.refused else "")
            + f"; {_REWORD}"
        )
    if message.refused:
        raise LMMResponseError(f"the model refused to answer: {one_line(message.refused)}; {_REWORD}")
    if finish in _BROKEN_OFF:
        raise LMMServerError(f"the server broke the answer off (it ended with {finish!r}); see its log")
    said = split_thought(message.text or "")
    thought = message.thought or said.thought
    if not said.finished or (thought and not said.answer.strip()):
        raise LMMResponseError(f"the model was still thinking when its answer ended ({finish!r}): {SWITCH_OFF}")
    if message.text is None:
        raise LMMResponseError(
            f"the server's answer has no text (it ended with {finish!r}): if the model thinks first, {SWITCH_OFF}"
        )
    return Thought(thought, said.answer)


def _answer_positions(positions: Sequence[Position], said: Thought, request: LMMRequest) -> Sequence[Position]:
    """The answer's tokens; none where the model never came to its answer."""
    if not positions:
        raise LMMResponseError(
            "the server returned no log-probabilities: use one that does (vLLM, started with --max-logprobs 20), or "
            "the mode `samples` or `stated`, which need none"
        )
    tokens = [position.token for position in positions]
    start = answer_start(tokens, said.answer, said.thought)
    if start is None:
        raise LMMResponseError(
            f"the server's log-probabilities are not those of the answer {one_line(said.answer, 40)!r}, but of other "
            f"tokens ({one_line(''.join(tokens), 40)!r}): if the model thinks first, {SWITCH_OFF}"
        )
    marker = request.answer_after
    if marker is not None and (said.thought or start) and (ends_thinking(marker) or not is_marked(said.answer, marker)):
        marker = None  # it was behind the thought, or left out after it, and the answer alone is left
    index = answer_position(tokens[start:], marker)
    return () if index is None else positions[start + index :]


def _answer_logprobs(answer: Sequence[Position], request: LMMRequest) -> tuple[TokenLogprob, ...]:
    """The alternatives at the answer's first token."""
    if not answer:
        return ()
    alternatives = finish_words(_known(answer[0]), ((each.token, each.value) for each in answer))
    if fault := logprobs_fault(alternatives, request.top_logprobs):
        raise LMMResponseError(fault)
    return tuple(TokenLogprob(token=a.token, logprob=min(a.logprob, 0.0)) for a in alternatives)


def _token(position: Position) -> AnswerToken:
    """A token with what might have been written there. Whether its numbers can be log-probabilities is looked at where
    they are read: a grammar may leave one token in places."""
    return AnswerToken(
        text=position.token,
        logprob=position.value if math.isfinite(position.value) else None,
        alternatives=_known(position),
    )


def _known(position: Position) -> tuple[TokenLogprob, ...]:
    """The alternatives that came with a number, the most probable first.

    A list may have holes: entries that are null, or not a number. Where a hole may hide more than `MIN_MASS`, whatever
    is less probable than that is left out as well, as from a list that ends there.
    """
    given: list[Alternative | None] = list(position.top_logprobs or [position])
    hole = next((index for index, each in enumerate(given) if each is None or math.isnan(each.value)), None)
    numbers = {each.token for each in given if each is not None and not math.isnan(each.value)}
    if hole is not None and position.token not in numbers:
        given[hole] = position  # the token that was written is there in any case
    values = [math.nan if each is None else each.value for each in given]
    hidden = _hidden(values)
    return tuple(
        alternative
        for alternative in gathered((each.token, each.value, each.known_as) for each in given if each is not None)
        if alternative.logprob >= hidden
    )


def _hidden(values: Sequence[float]) -> float:
    """Log of the most that one of the values that are not a number can be, if that is more than `MIN_MASS`; else -inf.
    Where the list falls, none can be more than the value before it."""
    numbers = [value for value in values if not math.isnan(value)]
    rest = 1.0 - sum(math.exp(min(value, 0.0)) for value in numbers)
    falls = numbers == sorted(numbers, reverse=True)
    most, before = 0.0, math.inf
    for value in values:
        if math.isnan(value):
            most = max(most, min(rest, math.exp(min(before, 0.0)) if falls else rest))
        else:
            before = value
    return math.log(most) if most > MIN_MASS else -math.inf


def _count(tokens: float | None) -> int:
    """A whole number of tokens; none where the server does not count them."""
    return math.ceil(tokens) if tokens is not None and 0 <= tokens < math.inf else 0


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return one_line(f"{place}: {fault['msg']}" if place else fault["msg"])

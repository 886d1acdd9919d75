"""verify: one question about one image. What fails is an unknown verdict, never a "no"."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import Any, Literal

from langgraph.errors import NodeCancelledError, NodeError
from langgraph.types import Command

from agent.deps import Deps
from agent.lmm.base import ImagePart, LMMRequest, LMMResponse, Message, TextPart
from agent.lmm.yes_no import p_yes
from agent.state import VerifyTask
from agent.strategies.strategy import Strategy, Verify
from agent.types import Predicate, TraceEvent, Verdict
from core.errors import ConfigError, FieldscopeError, ImageError, LMMError


def question(predicate: Predicate, image_id: str, sha256: str, settings: Verify) -> LMMRequest:
    """The request for one question about one image: image first, so that a server caches it for the next question."""
    message = Message(content=(ImagePart(image_id=image_id, sha256=sha256), TextPart(text=predicate.question)))
    return LMMRequest(
        messages=(message,),
        max_tokens=settings.max_tokens,
        top_logprobs=settings.top_logprobs,
        answer_after=settings.answer_after,
        extra_body=settings.extra_body,
    )


async def judge(predicate: Predicate, image_id: str, settings: Verify, deps: Deps) -> Verdict:
    """Ask, and read P(yes). An `LMMError`, an `ImageError` or an unreadable answer makes the verdict unknown; every
    other error is raised."""
    if deps.lmm is None:
        raise ConfigError("no model to ask; name one with --lmm")
    known: dict[str, Any] = {"predicate": predicate.id, "image_id": image_id}
    try:
        sha256 = await asyncio.to_thread(deps.images.pixel_hash, image_id)
        request = question(predicate, image_id, sha256, settings)
        known["request_key"] = request.key(deps.lmm.identity)
        response = await deps.lmm.generate(request)
    except (LMMError, ImageError) as error:
        return Verdict(state="unknown", error=_one_line(error), **known)
    known |= _cost(response)
    read = p_yes(response.answer_logprobs)
    if read.p_yes is None:
        return Verdict(state="unknown", error=read.reason, **known)
    p_expected = read.p_yes if predicate.expected == "yes" else 1.0 - read.p_yes
    return Verdict(state="answered", p_yes=read.p_yes, p_expected=p_expected, **known)


async def verify(task: VerifyTask, *, deps: Deps, strategy: Strategy) -> dict[str, Any]:
    """One task of a wave: the verdict and its event."""
    if strategy.verify is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage 'verify'")
    return _update(task, await judge(task.predicate, task.image_id, strategy.verify, deps))


def unforeseen(task: VerifyTask, error: NodeError) -> Command[Literal["plan"]]:
    """What nobody foresaw in one task (LangGraph's error handler) is unknown for that image, and the others go on.

    Errors that are raised on purpose (a replay's missing call, words outside a vocabulary) and cancellation do end the
    run. They are raised as copies: LangGraph takes an exception that it has handed over for settled, and would go on.
    """
    if isinstance(error.error, FieldscopeError | NodeCancelledError) or not isinstance(error.error, Exception):
        raise copy.copy(error.error) from error.error
    message = f"unforeseen {type(error.error).__name__}: {_one_line(error.error)}"
    verdict = Verdict(predicate=task.predicate.id, image_id=task.image_id, state="unknown", error=message)
    return Command(update=_update(task, verdict), goto="plan")


def _update(task: VerifyTask, verdict: Verdict) -> dict[str, Any]:
    data = {
        "wave": task.wave,
        "image_id": task.image_id,
        "predicate": task.predicate.id,
        "state": verdict.state,
        "cached": verdict.cached,
    }
    event = TraceEvent(kind="verified", at=time.monotonic() - task.started, data=data)
    return {"verdicts": (verdict,), "trace": (event,)}


def _cost(response: LMMResponse) -> dict[str, Any]:
    return {
        "answer": response.text,
        "prompt_tokens": response.usage.prompt_tokens,
        "completion_tokens": response.usage.completion_tokens,
        "latency": response.latency,
        "cached": response.cached,
    }


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

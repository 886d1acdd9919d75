"""Send one request to the model. A failed call is *unknown*, one that the budget forbids is *not asked*."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeGuard, runtime_checkable

from fieldscope.agent.lmm.base import LMM, ImagePart, LMMRequest, LMMResponse, Message, TextPart
from fieldscope.agent.types import Asked, State
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import BudgetError, ContextLengthError, ImageError, LMMError, LMMRequestError
from fieldscope.core.types import HashSource, ImageSource, RemembersHashes
from fieldscope.prompts.prompt import Prompt


@dataclass(frozen=True)
class Answer:
    """What became of a request. `response` is set where `state` is `answered`; else `error` says why not, and
    `refused` whether the server refused the request itself."""

    state: State
    response: LMMResponse | None = None
    error: str | None = None
    request_key: str | None = None
    refused: bool = False

    @property
    def cost(self) -> dict[str, Any]:
        """The fields of an `Asked` record that say what it cost."""
        known: dict[str, Any] = {"request_key": self.request_key}
        if self.response is not None:
            known |= {
                "prompt_tokens": self.response.usage.prompt_tokens,
                "completion_tokens": self.response.usage.completion_tokens,
                "latency": self.response.latency,
                "cached": self.response.cached,
            }
        return known

    @property
    def asked(self) -> dict[str, Any]:
        """All fields of an `Asked` record."""
        return {"state": self.state, "error": self.error, "refused": self.refused, **self.cost}


@runtime_checkable
class Seeded(Protocol):
    """An LMM that asks every request under a seed of its own."""

    def seeded(self, request: LMMRequest) -> LMMRequest:
        """The request as it is sent."""
        ...


def as_sent(lmm: LMM, request: LMMRequest) -> LMMRequest:
    """The request that an LMM sends, whose key finds the answer."""
    return lmm.seeded(request) if _is_seeded(lmm) else request


def _is_seeded(lmm: LMM) -> TypeGuard[Seeded]:
    return _has_seeds(type(lmm))


@cache
def _has_seeds(kind: type[Any]) -> bool:
    return issubclass(kind, Seeded)


async def ask(lmm: LMM, request: LMMRequest) -> Answer:
    """Ask once. Errors that are no fault of the model's or the image's (a replay's missing call) are raised, and so is
    `ContextLengthError`: every other request of the kind would fail alike, so the whole work ends with one sentence."""
    request = as_sent(lmm, request)
    try:
        response = await lmm.generate(request)
    except BudgetError as error:
        return Answer("not_asked", error=one_line(error))
    except ContextLengthError:
        raise
    except (LMMError, ImageError) as error:
        refused = isinstance(error, LMMRequestError)
        key = request.key(lmm.identity)
        return Answer("unknown", error=one_line(error), request_key=key, refused=refused)
    # The key is made after the answer, since the first answer of a server may be what identifies it.
    return Answer("answered", response, request_key=request.key(lmm.identity))


async def image_parts(images: ImageSource, image_ids: Sequence[str]) -> tuple[ImagePart, ...]:
    """Images as they go into a request. Raises `ImageError` for one that can't be read."""
    hashes = [await _hash(images, image_id) for image_id in image_ids]
    return tuple(ImagePart(image_id=i, sha256=sha256) for i, sha256 in zip(image_ids, hashes, strict=True))


async def _hash(images: ImageSource, image_id: str) -> str:
    """An image's hash, without a thread where it needs no reading."""
    if isinstance(images, HashSource):
        return images.pixel_hash(image_id)
    known = images.known_hash(image_id) if isinstance(images, RemembersHashes) else None
    return known if known is not None else await asyncio.to_thread(images.pixel_hash, image_id)


def messages(prompt: Prompt, *content: TextPart | ImagePart) -> tuple[Message, ...]:
    """The prompt's system message, where it has one, its examples, and the user's message: images first, question
    last."""
    before = [Message(role="system", content=(TextPart(text=prompt.system),))] if prompt.system else []
    for example in prompt.examples or ():
        shown = [ImagePart(image_id=image.image_id, sha256=image.sha256) for image in example.images]
        before.append(Message(content=(*shown, TextPart(text=example.text))))
        before.append(Message(role="assistant", content=(TextPart(text=example.answer),)))
    return (*before, Message(content=content))


def spent(questions: Sequence[Asked]) -> dict[str, Any]:
    """What questions cost together, as a trace event records it."""
    usage = Usage.of(questions)
    keys = [question.request_key for question in questions if question.state != "not_asked" and question.request_key]
    return {"calls": usage.calls, "cached": usage.cached, "tokens": usage.tokens, "requests": keys}


def one_line(error: BaseException) -> str:
    """An error's words, or its class where it has none, on one line."""
    return " ".join(str(error).split()) or type(error).__name__

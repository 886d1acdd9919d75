"""The JSON of a chat completion, as far as it is read. An optional field of another shape costs no more than itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")


class _PassedOver:
    """None stands for a value of another shape. The rule is pydantic-core's own, since a call of Python's for each
    field of each alternative would take longer than the rest of reading an answer."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Maybe = Annotated[T | None, _PassedOver()]
"""An optional field."""


def passed_over(document: Any, read: Any, name: str = "") -> Iterator[str]:
    """The fields of a JSON document that were passed over when it was `read` as one of these models."""
    if read is None and document is not None:
        yield f"{name} is {type(document).__name__}"
    elif isinstance(read, list) and isinstance(document, list):
        for item, value in zip(document, read, strict=False):
            yield from passed_over(item, value, name)
    elif isinstance(read, BaseModel) and isinstance(document, dict):
        for field in type(read).model_fields:
            yield from passed_over(document.get(field), getattr(read, field), field)


class Alternative(BaseModel):
    """A token that the model might have written."""

    token: str
    logprob: Maybe[float] = None
    id: Maybe[int] = None
    bytes: Maybe[list[int]] = None

    @property
    def known_as(self) -> int | tuple[int, ...] | None:
        """What tells the token from another of its spelling, where the server says it."""
        return self.id if self.id is not None else tuple(self.bytes) if self.bytes else None

    @property
    def value(self) -> float:
        """The logarithm, not a number where none came."""
        return math.nan if self.logprob is None else self.logprob


class Position(Alternative):
    """A token that the model wrote, and what it might have written there."""

    top_logprobs: Maybe[list[Maybe[Alternative]]] = None


class Logprobs(BaseModel):
    content: Maybe[list[Maybe[Position]]] = None

    @property
    def positions(self) -> list[Position]:
        """One for each token; one that can't be read stands there without a text."""
        return [position or Position(token="") for position in self.content or []]


class Part(BaseModel):
    """A piece of a message; its `type` says of what kind."""

    type: str = "text"
    text: str = ""
    refusal: str = ""
    thinking: Any = ""

    @property
    def kind(self) -> str:
        """`text`, `refusal`, or `thought`."""
        if self.type in ("text", "output_text"):
            return "text"
        return "refusal" if self.type == "refusal" else "thought"


class ChatMessage(BaseModel):
    """What the model said: a text, or parts. Some servers put apart what was thought aloud before it."""

    content: str | list[Part | str] | Part | None = None
    refusal: Maybe[str] = None
    reasoning: Maybe[str] = None
    reasoning_content: Maybe[str] = None
    thinking: Maybe[str] = None

    @property
    def text(self) -> str | None:
        return None if self.content is None else "".join(part.text for part in self._parts() if part.kind == "text")

    @property
    def thought(self) -> str:
        apart = [part.text or str(part.thinking) for part in self._parts() if part.kind == "thought"]
        return self.reasoning or self.reasoning_content or self.thinking or "".join(apart)

    @property
    def refused(self) -> str:
        """The words of a refusal."""
        parts = [part.refusal or part.text for part in self._parts() if part.kind == "refusal"]
        return self.refusal or "".join(parts)

    def _parts(self) -> Iterator[Part]:
        for part in self.content if isinstance(self.content, list) else [self.content]:
            if part is not None:
                yield Part(text=part) if isinstance(part, str) else part


class Choice(BaseModel):
    message: ChatMessage
    finish_reason: Any = None
    logprobs: Maybe[Logprobs] = None

    @property
    def finish(self) -> str:
        """Why the answer ended, which some servers say in an object."""
        said = self.finish_reason
        if isinstance(said, dict):
            said = said.get("type") or said.get("reason")
        return said if isinstance(said, str) and said else "stop"


class PromptDetails(BaseModel):
    cached_tokens: Maybe[int] = None


class TokenCounts(BaseModel):
    """How many tokens were used, where the server counts them."""

    prompt_tokens: Maybe[float] = None
    completion_tokens: Maybe[float] = None
    prompt_tokens_details: Maybe[PromptDetails] = None


class Completion(BaseModel):
    choices: list[Choice] = Field(min_length=1)
    usage: Maybe[TokenCounts] = None


class ListedModel(BaseModel):
    id: str


class ModelList(BaseModel):
    data: Maybe[list[Maybe[ListedModel]]] = None

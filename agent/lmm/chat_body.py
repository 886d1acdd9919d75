"""The JSON of a chat completion, as far as it is read. An optional field of another shape costs no more than itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

T = TypeVar("T")


def _pass_over(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """None for a value of another shape; its field is noted in the context, where that is a list."""
    try:
        return handler(value)
    except ValidationError:
        if isinstance(info.context, list):
            info.context.append(f"{info.field_name} is {type(value).__name__}")
        return None


Maybe = Annotated[T | None, WrapValidator(_pass_over)]
"""An optional field."""


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

"""What a back end for a large multimodal model (LMM) has to offer, and the records that go in and out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.fingerprint import canonical_json


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Record):
    """A piece of text in a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(_Record):
    """A reference to an image: `image_id` finds it in the image source, `sha256` of its pixels is its identity."""

    type: Literal["image"] = "image"
    image_id: str
    sha256: str


class Message(_Record):
    """One message of a chat; content parts are rendered in their order (image first, question last)."""

    role: Literal["system", "user", "assistant"] = "user"
    content: tuple[TextPart | ImagePart, ...]


_ADDED = {"logprobs_of": "first"}
"""Fields that came later, with the values at which a request is the one that it was before, under the same key."""


class LMMRequest(_Record):
    """Everything that decides a model's answer, and so everything that its cache key is made of.

    `top_logprobs` (0 to 20) asks for log-probabilities: of the answer's `first` token, or, with `logprobs_of`, of
    `all` of its tokens; `json_schema` for a structured answer;
    `answer_after` is the text after which the answer starts, for models that think aloud first: where it begins a
    line, the last such line counts; `sample` tells repeated draws of one request apart; `extra_body` is passed through
    to an OpenAI-compatible server.
    """

    messages: tuple[Message, ...]
    max_tokens: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    seed: int = 0
    sample: int = 0
    top_logprobs: int = Field(default=0, ge=0, le=20)
    logprobs_of: Literal["first", "all"] = "first"
    json_schema: dict[str, Any] | None = None
    answer_after: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """All text of the messages, one part a line."""
        return "\n".join(part.text for m in self.messages for part in m.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """All images of the messages, in their order."""
        return tuple(part for m in self.messages for part in m.content if isinstance(part, ImagePart))

    @property
    def draw(self) -> int:
        """What sampling starts from: a number under 2**63, another for each `seed` (under 2**47) and `sample` (under
        2**16)."""
        return ((self.seed << 16) + self.sample) % (1 << 63)

    def key(self, model_identity: str) -> str:
        """The request's cache key under one model. Image ids are left out: the pixels' hash is the image."""
        named = f'{{"model":{canonical_json(model_identity)},"request":{self.canonical}}}'
        return sha256(named.encode()).hexdigest()

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON of what decides the answer."""
        values = {name: self.__dict__[name] for name in type(self).model_fields}
        body = {name: value for name, value in values.items() if name not in _ADDED or value != _ADDED[name]}
        # As `model_dump` has it, at a fraction of its time: a replay makes a key for every answer.
        body["messages"] = [
            {"role": message.role, "content": [_identified(part) for part in message.content]}
            for message in self.messages
        ]
        return canonical_json(body)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which may differ, and so does not take over what was made of this request."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("canonical", None)
        return copied


def _identified(part: TextPart | ImagePart) -> dict[str, str]:
    """What of a part decides the answer."""
    if isinstance(part, TextPart):
        return {"type": part.type, "text": part.text}
    return {"type": part.type, "sha256": part.sha256}


class TokenLogprob(_Record):
    """One alternative for a token, with its natural log-probability (at most 0)."""

    token: str
    logprob: float


class AnswerToken(_Record):
    """A token of an answer as it was written, its natural log-probability where it is known, and the `alternatives`
    there, most probable first."""

    text: str
    logprob: float | None
    alternatives: tuple[TokenLogprob, ...]


class Tokens(_Record):
    """Tokens that one call used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class LMMResponse(_Record):
    """A model's answer. `answer_logprobs` are the alternatives at the answer's first token, most probable first
    (empty where none were asked for or the server gave none); `tokens` are those of the whole answer, where the request
    asks for the log-probabilities of all; `latency` is in seconds. `thought` is what the model thought aloud before its
    answer, in the server's reasoning field or between marks such as `<think>`. `adapted` says what of the request the
    server did not take (`fieldscope.agent.lmm.server_profile`)."""

    text: str
    thought: str = ""
    answer_logprobs: tuple[TokenLogprob, ...] = ()
    tokens: tuple[AnswerToken, ...] = ()
    usage: Tokens = Tokens()
    finish_reason: str = "stop"
    latency: float = 0.0
    cached: bool = False
    adapted: tuple[str, ...] = ()


@runtime_checkable
class Stored(Protocol):
    """An `LMM` all of whose answers are at hand, so that no call waits for anything."""

    @property
    def stored(self) -> Literal[True]: ...


class LMM(Protocol):
    """A large multimodal model: one method that answers a request, an identity, and a way to close it."""

    @property
    def identity(self) -> str:
        """Which model this is: the SHA-256 of the weights, or a server's model name and revision, with everything
        outside the request that changes its answers (image preprocessing, data type)."""
        ...

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer one request. Raises `LMMError` where no usable answer came, `ImageError` for an unreadable image."""
        ...

    async def aclose(self) -> None:
        """Release the client or the weights."""
        ...

"""From a request to the text that a model of transformers reads: the rendered chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2

from fieldscope.agent.lmm.base import LMMRequest, Message, TextPart
from fieldscope.core.errors import LMMRequestError, first_line

Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """A request made ready: the rendered chat, with one placeholder for each of the request's images."""

    request: LMMRequest
    text: str


class ChatPrompts:
    """Renders requests with a processor's chat template.

    The templates of model families differ in what they take: some refuse a system message, and some want the content
    of a message without pictures as one string. A template that refuses the messages is given them in these ways in
    turn. A model without a chat template (PaliGemma) gets its images and then the text.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._ids = lru_cache(maxsize=4096)(self._tokenized)

    def render(self, request: LMMRequest) -> Prompt:
        """The chat as text. Raises `LMMRequestError` for messages that the chat template refuses."""
        text = self._rendered(request)
        placeholder = self._processor.image_token
        if text.count(placeholder) != len(request.images):
            raise LMMRequestError(
                f"{len(request.images)} images but {text.count(placeholder)} times {placeholder!r} in the prompt: "
                "take it out of the text, or use a model whose chat template takes that many images"
            )
        return Prompt(request, text)

    def split(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        """The text up to and with the last picture, and the ids of the tokens behind it."""
        placeholder = self._processor.image_token
        cut = prompt.text.rindex(placeholder) + len(placeholder)
        return prompt.text[:cut], self._ids(prompt.text[cut:])

    def _tokenized(self, text: str) -> tuple[int, ...]:
        """The ids of a text that stands behind a picture."""
        placeholder = self._processor.image_token
        ids = self._tokenizer(placeholder + text, add_special_tokens=False)["input_ids"]
        return tuple(ids[ids.index(self._tokenizer.convert_tokens_to_ids(placeholder)) + 1 :])

    @property
    def has_template(self) -> bool:
        return bool(self._processor.chat_template or self._tokenizer.chat_template)

    def _rendered(self, request: LMMRequest) -> str:
        if not self.has_template:
            return self._processor.image_token * len(request.images) + request.text
        renderer = self._processor if self._processor.chat_template else self._tokenizer
        options = request.extra_body.get("chat_template_kwargs", {})
        refused: Exception | None = None
        for chat in _chats(request.messages):
            try:
                text = renderer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
            except (jinja2.TemplateError, ValueError, TypeError) as error:
                refused = refused or error
            else:
                return str(text)
        raise LMMRequestError(
            f"the model's chat template refuses the messages: {first_line(refused, 240)}; use another prompt or "
            "checkpoint"
        ) from refused


def _chats(messages: Sequence[Message]) -> Iterator[Chat]:
    """The messages in the ways that templates take them, the usual one first."""
    ways: tuple[Callable[[Sequence[Message]], Sequence[Message]], ...] = (lambda same: same, _without_system)
    for arranged in ways:
        if arranged is _without_system and all(message.role != "system" for message in messages):
            continue
        for as_string in (False, True):
            yield [{"role": message.role, "content": _content(message, as_string)} for message in arranged(messages)]


def _content(message: Message, as_string: bool) -> str | list[dict[str, str]]:
    """The parts of a message; one string instead, where it shows no picture and `as_string` asks for that."""
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    if as_string and len(texts) == len(message.content):
        return "\n".join(texts)
    return [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.content
    ]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with what the system message says at the start of the next one."""
    arranged: list[Message] = []
    said: tuple[TextPart, ...] = ()
    for message in messages:
        if message.role == "system":
            said += tuple(TextPart(text=f"{part.text}\n\n") for part in message.content if isinstance(part, TextPart))
        else:
            arranged.append(message.model_copy(update={"content": (*said, *message.content)}))
            said = ()
    return arranged

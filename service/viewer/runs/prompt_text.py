"""Which prompt a request was made with, and which parts of its text are values of the prompt's variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fieldscope.agent.lmm.base import LMMRequest, Message, TextPart
from fieldscope.prompts.prompt import Prompt


@dataclass(frozen=True)
class Piece:
    """A part of a text: the prompt's own, or the value of a `variable`."""

    text: str
    variable: str | None = None


@dataclass(frozen=True)
class Wording:
    """A rendered prompt. Its `pieces` make up the text that was sent."""

    prompt: Prompt
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The text that was sent."""
        return "".join(piece.text for piece in self.pieces)


def template_pieces(prompt: Prompt) -> tuple[Piece, ...]:
    """The pieces of the template itself, with variables as their names."""
    return tuple(Piece(words, words if place % 2 else None) for place, words in enumerate(prompt.pieces) if words)


def wording(request: LMMRequest, prompts: Iterable[Prompt]) -> Wording | None:
    """The prompt that this request fits, the one with most text of its own if there are several; None if none fits."""
    users = [message for message in request.messages if message.role == "user"]
    system = "\n".join(m.content[0].text for m in request.messages[:1]
                       if m.role == "system" and m.content and isinstance(m.content[0], TextPart))  # fmt: skip
    found = [
        Wording(prompt, pieces)
        for prompt in prompts
        # The examples come before the question, and the repairs after it.
        for asked in users[len(prompt.examples or ()) :][:1]
        if (text := _last_text(asked)) is not None and prompt.system == system
        if (pieces := _pieces(prompt, text)) is not None
    ]
    return max(found, key=_own_words, default=None)


def _last_text(message: Message) -> str | None:
    return next((part.text for part in reversed(message.content) if isinstance(part, TextPart)), None)


def _own_words(found: Wording) -> int:
    return sum(len(piece.text) for piece in found.pieces if piece.variable is None)


def _pieces(prompt: Prompt, text: str) -> tuple[Piece, ...] | None:
    """The text split at the template's own parts, in their order; None if it does not fit."""
    first, *rest = prompt.pieces
    if not rest:
        return (Piece(text),) if text == first else None
    if not text.startswith(first):
        return None
    pieces, at = [Piece(first)], len(first)
    for place in range(0, len(rest), 2):
        variable, words = rest[place], rest[place + 1]
        last = place + 2 == len(rest)
        end = len(text) - len(words) if last else text.find(words, at)
        if end < at or not text.startswith(words, end):
            return None
        pieces += [Piece(text[at:end], variable), Piece(words)]
        at = end + len(words)
    return tuple(piece for piece in pieces if piece.text)

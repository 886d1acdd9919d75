"""A request in words, whichever kind it is: a text query, a reference image and a change, or a dialogue."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fieldscope.agent.types import Instruction, Synthesis
from fieldscope.core.types import Query, Turn
from fieldscope.prompts.prompt import Prompt
from fieldscope.retrieval.encoder import query_text


def request_text(query: Query, caption: str, prompt: Prompt) -> str:
    """The whole request for a model that thinks about it, in the forms of its prompt. `caption` says in words what the
    reference image shows.

    All three kinds lead to the same structured answers, as in ImageScope (arXiv 2503.10166).
    """
    if query.reference_image is not None:
        return prompt.form("composed", caption=caption, query=query.text)
    if query.dialogue:
        rounds = (prompt.form("round", question=turn.question, answer=turn.answer) for turn in query.dialogue)
        return prompt.form("dialogue", query=query.text, rounds=prompt.form("separator").join(rounds))
    return prompt.form("text", query=query.text)


def description(query: Query, synthesis: Synthesis | None) -> str:
    """All that is asked for as one text: as the synthesis has it, or without one in the request's own words."""
    return synthesis.comprehensive if synthesis else query_text(query)


def comparison_text(query: Query, synthesis: Synthesis | None) -> str:
    """The query in a comparison's words: beside a reference image the change alone, else all that is asked for."""
    return query.text if query.reference_image is not None else description(query, synthesis)


def last_asked(query: Query, by_turns: bool) -> str:
    """What the user asked for, in their own words: the text, or the change. Of a dialogue that is thought out
    `by_turns` it is the last turn alone, as ImageScope (arXiv 2503.10166) has it, else the first text and all
    answers."""
    if query.dialogue and by_turns:
        return turn_text(query.dialogue[-1])
    return query_text(query)


def plain_words(text: str) -> str:
    """A text as ImageScope's final walk words it: in lower case, without spaces and full stops at its ends."""
    return text.strip(" .").lower()


def turn_text(turn: Turn) -> str:
    """A turn of a dialogue as one text."""
    return " ".join(part for part in (turn.question, turn.answer) if part)


def asked_text(query: Query, synthesis: Synthesis | None) -> str:
    """What is asked for as one text: a text query in its own words, whatever was made of them; other requests as they
    were thought out."""
    plain = query.reference_image is None and not query.dialogue
    return query.text if plain else description(query, synthesis)


def instructions_text(instructions: Sequence[Instruction], prompt: Prompt) -> str:
    """Numbered instructions, with the request's words behind each, in the forms of their prompt."""
    return prompt.form("separator").join(
        prompt.form("instruction", number=str(number), type=each.type, text=each.text, words=each.words)
        for number, each in enumerate(instructions, start=1)
    )


def own_words(words: str, query: Query, caption: str = "") -> str:
    """`words` where the request says them, whatever their case, and nothing where it does not."""
    said = (query.text, caption, *(text for turn in query.dialogue for text in (turn.question, turn.answer)))
    words = " ".join(words.split()).strip(" .,;:!?\"'")
    return words if any(words.casefold() in " ".join(text.split()).casefold() for text in said) else ""


def mentions(text: str, words: str) -> bool:
    """Whether a text has these words in it, as words: a starfish is no fish."""
    return re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text, re.IGNORECASE) is not None

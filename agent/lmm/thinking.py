"""Telling a model's answer from what it thought aloud before it, in its text and in its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<analysis>", "</analysis>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
)
"""What stands before and behind the thinking of one family of models or another."""

SWITCH_OFF = (
    "switch its thinking off (extra_body of the strategy's stages: {chat_template_kwargs: {enable_thinking: false}}), "
    "or allow max_tokens for thinking and answer together: P(yes) is read behind the thinking"
)

_CONTROL = re.compile(r"\s*(<[^<>\s]*>|\[/?[A-Z_]+\]|◁[^◁▷\s]*▷)\s*")  # a token that is no text
SPACES = str.maketrans("▁ĠĊ", "  \n")
"""From how tokenizers write white space to white space."""

_ENDING = 16  # letters that tell where a thought ends


def opening_of(prompt: str) -> str:
    """The mark before the thinking that a rendered prompt ends with; "" where its template opened no thinking."""
    return next((opening for opening, _ in _MARKS if prompt.rstrip().endswith(opening)), "")


class Thought(NamedTuple):
    """A text's two parts. `finished` is false where it ends before the thinking does: then there is no answer."""

    thought: str
    answer: str
    finished: bool = True


def split_thought(text: str) -> Thought:
    """What was thought aloud, without its marks, and what follows; without thinking a text is all answer. The opening
    mark may be missing, since the chat template may have written it."""
    end, mark = max((text.rfind(closing), closing) for _, closing in _MARKS)
    thought, answer = (text[:end], text[end + len(mark) :]) if end >= 0 else ("", text)
    if answer.lstrip().startswith(tuple(opening for opening, _ in _MARKS)):
        return Thought(text, "", finished=False)
    for opening, _ in _MARKS:
        thought = thought.strip().removeprefix(opening)
    return Thought(thought, answer)


def marked_line(text: str, marker: str) -> tuple[int, int] | None:
    """Where the last line of a text that begins with the marker starts, and where the marker ends, in whatever case and
    whatever Markdown surrounds it. None where no line begins with it.

    A thought may quote the marker ("I must end with Answer: yes or Answer: no"), but hardly at the start of a line.
    """
    lines = list(_marked(marker.strip()).finditer(text.translate(SPACES))) if marker.strip() else []
    return lines[-1].span() if lines else None


def is_marked(text: str, marker: str) -> bool:
    """Whether the marker is anywhere in a text."""
    return marker in text or marked_line(text, marker) is not None


@lru_cache(maxsize=64)
def _marked(words: str) -> re.Pattern[str]:
    colon = r"[*_`]*\s*:" if words.endswith(":") else ""
    written = rf"^[ \t>#*_`-]*{re.escape(words.removesuffix(':'))}{colon}[\s*_`]*"
    return re.compile(written, re.IGNORECASE | re.MULTILINE)


def ends_thinking(marker: str) -> bool:
    """Whether a text is what stands behind the thinking."""
    return marker.strip() in {closing for _, closing in _MARKS}


def answer_start(tokens: Sequence[str], answer: str, thought: str = "") -> int | None:
    """Index of the token from which on the tokens of a generated text are those of its `answer`; None where they are
    not to be found, or may as well be those of the `thought`.

    Letters and digits alone are compared: servers differ in how they write white space and broken characters. The
    tokens may lack the thought, or all but the beginning of an answer without one.
    """
    pieces = ["" if _CONTROL.fullmatch(token) else _letters(token) for token in tokens]
    wanted, thinking = _letters(answer), _letters(thought)
    joined = "".join(pieces)
    if not wanted and not joined:
        return 0
    if not thinking and wanted and joined and (joined.startswith(wanted) or wanted.startswith(joined)):
        return next(index for index, token in enumerate(tokens) if not _CONTROL.fullmatch(token))
    behind = ""
    for index in range(len(pieces) - 1, -1, -1):
        behind = pieces[index] + behind
        if pieces[index] and behind == wanted:
            before = "".join(pieces[:index])
            apart = thinking[-_ENDING:] in before if before else not thinking.startswith(wanted)
            return index if apart else None
    return None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.translate(SPACES)))

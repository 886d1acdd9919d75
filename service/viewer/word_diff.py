"""The difference between two texts, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "out", "in"]

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_LONG = 1000  # words and signs; beyond, words that are everywhere are no landmarks, or two texts would take minutes


def word_diff(old: str, new: str) -> list[tuple[Kind, str]]:
    """The pieces of both texts in order: those of both, those only `old` has (`out`), those only `new` has (`in`).

    `same` and `out` together are `old`, `same` and `in` are `new`, to the letter. Spaces alone hold no two texts
    together, so a phrase that was replaced is told as one.
    """
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    matcher = SequenceMatcher(str.isspace, before, after, autojunk=len(after) > _LONG)
    pieces: list[tuple[Kind, str]] = []
    for tag, b0, b1, a0, a1 in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(("same", "".join(before[b0:b1])))
            continue
        if b0 < b1:
            pieces.append(("out", "".join(before[b0:b1])))
        if a0 < a1:
            pieces.append(("in", "".join(after[a0:a1])))
    return pieces

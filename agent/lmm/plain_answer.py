"""What an answer says in plain words, where a server gives no log-probabilities, and probabilities from such answers.

One answer says yes or no and not how probable. So a question is asked several times, and the share of each answer is
smoothed as by Krichevsky and Trofimov (1981): half an answer is added to each side, which is what Jeffreys' prior
expects. No probability is then 0 or 1, however few the answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from fieldscope.agent.lmm.choice import LETTERS
from fieldscope.agent.lmm.yes_no import YES_NO

MOST_STATED = 0.999
"""No stated probability is believed to be nearer to 1 than this, or nearer to 0 than one minus this."""

_HALF = 0.5
_WORD = re.compile(r"[^\W_]+")
_LETTER = re.compile(r"[\W_]*(?:(?:answer|image|option)[\W_]+)*([a-z])(?:[^\w\s]|[*_]*\s*$|[*_]*\s*\n)", re.IGNORECASE)


def plain_yes_no(text: str) -> Literal["yes", "no"] | None:
    """What the first word of a text says; None where that is neither a yes nor a no."""
    first = _WORD.search(text)
    sides: dict[str, Literal["yes", "no"]] = {"positive": "yes", "negative": "no"}
    return sides.get(YES_NO.side(first[0])) if first else None


def plain_letter(text: str, choices: int) -> int | None:
    """The place of the letter, of the first `choices`, with which a text begins; None where it begins with none.

    A letter that a word follows is none: "a" is an article, too.
    """
    said = _LETTER.match(text)
    letters = LETTERS[:choices]
    return letters.index(said[1].lower()) if said and said[1].lower() in letters else None


def smoothed(counts: Sequence[int]) -> tuple[float, ...]:
    """The probability of each answer, strictly between 0 and 1, from how often it was given."""
    total = sum(counts) + _HALF * len(counts)
    return tuple((count + _HALF) / total for count in counts)


def believed(stated: float) -> float:
    """A stated probability, kept off 0 and 1."""
    return min(max(stated, 1.0 - MOST_STATED), MOST_STATED)

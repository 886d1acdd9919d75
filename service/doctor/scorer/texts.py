"""Texts with known content: captions that match a query, and prose that matches none."""

from __future__ import annotations

from itertools import cycle, islice

_PROSE = (
    "The committee approved the minutes of its last meeting without further discussion.",
    "Invoices are paid within thirty days unless the contract names another date.",
    "A new timetable for the evening trains takes effect at the beginning of next month.",
    "Several members asked for a longer break between the second and the third session.",
    "The library extends its opening hours during the examinations in early summer.",
    "Please return the signed forms to the office before the end of the week.",
    "Costs of travel are refunded after the receipts have been handed in.",
    "The heating was repaired, and the larger hall can be used again from Monday on.",
)


def caption(description: str) -> str:
    """A text that matches a description, in few words."""
    return f"A picture that shows {description}."


def prose(words: int, start: int = 0) -> str:
    """So many words of prose that matches no query of the doctor's; `start` chooses where it begins."""
    sentences = _PROSE[start % len(_PROSE) :] + _PROSE[: start % len(_PROSE)]
    return " ".join(islice(cycle(" ".join(sentences).split()), words))


def notes(number: int) -> list[str]:
    """Short texts, each of its own, that match no query of the doctor's."""
    return [f"Note {place + 1}: {_PROSE[place % len(_PROSE)]}" for place in range(number)]


OTHER_TEXTS = ("An invoice.", _PROSE[0], prose(48, 1), prose(200, 2))
"""Texts of very different lengths that match no query, so that a batch of them needs padding."""

"""Dialogues: which queries are the rounds of one, and which of them stands for it after each round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fieldscope.core.types import Query

HITS = ("hits@1", "hits@5", "hits@10")
"""The metrics that a dialogue carries from round to round, and that are therefore reported of it as a whole."""

DIALOGUES = "dialogues"
"""In the means after a number of rounds: over how many dialogues they are."""


def dialogues(queries: Iterable[Query]) -> list[list[str]]:
    """The query ids of each dialogue, in the order of its rounds.

    A dialogue's next query has the same text and reference image, and all that was said before. Where that fits
    several dialogues, one whose ids begin alike goes first (`d01.2` follows `d01.1`), then the one listed first.
    """
    found: list[list[str]] = []
    ending: dict[tuple[object, ...], list[list[str]]] = {}  # what was said -> the dialogues that end with it
    for query in sorted(queries, key=lambda query: len(query.dialogue)):
        earlier = (ending.get(_said(query, rounds)) for rounds in reversed(range(len(query.dialogue))))
        if fitting := next(filter(None, earlier), None):
            dialogue = min(fitting, key=lambda ids: _stem(ids[-1]) != _stem(query.id))
            fitting.remove(dialogue)
        else:
            dialogue = []
            found.append(dialogue)
        dialogue.append(query.id)
        ending.setdefault(_said(query, len(query.dialogue)), []).append(dialogue)
    return found


def by_round(dialogues: Sequence[Sequence[str]], heard: Mapping[str, int]) -> dict[int, list[str]]:
    """Number of rounds -> for each dialogue, the query that stands for it then.

    That is its last query that has `heard` no more rounds, so a dialogue that has ended stands as it ended. The
    numbers start where all dialogues have a query, so that each has as many queries as there are dialogues.
    """
    if not dialogues:
        return {}
    first = max(heard[ids[0]] for ids in dialogues)
    numbers = sorted({heard[query_id] for ids in dialogues for query_id in ids})
    return {
        number: [[query_id for query_id in ids if heard[query_id] <= number][-1] for ids in dialogues]
        for number in numbers
        if number >= first
    }


def _said(query: Query, rounds: int) -> tuple[object, ...]:
    return query.text, query.reference_image, query.dialogue[:rounds]


def _stem(query_id: str) -> str:
    return query_id.rpartition(".")[0]

"""Which queries are the rounds of one dialogue, and which stands for it after each round."""

from __future__ import annotations

import random

import pytest

from fieldscope.core.types import Query, Turn
from fieldscope.eval.dialogues import by_round, dialogues
from fieldscope.fieldnotes.dialogue import load_dialogue


def query(id: str, *answers: str, text: str = "a heron") -> Query:
    return Query(id=id, text=text, dialogue=tuple(Turn(question="what?", answer=answer) for answer in answers))


def test_a_dialogue_is_known_by_what_was_said() -> None:
    queries = [query("2", "red"), query("0"), query("3", "red", "wet"), query("other", text="a crab"), query("5", "x")]
    assert dialogues(queries) == [["0", "2", "3"], ["other"], ["5"]]


def test_rounds_may_be_left_out() -> None:
    assert dialogues([query("0"), query("2", "red", "wet")]) == [["0", "2"]]


@pytest.mark.parametrize("by_dialogue", [True, False])
def test_dialogues_that_begin_alike_are_told_apart(by_dialogue: bool) -> None:
    """In both orders that a file may have: dialogue after dialogue, or round after round."""
    queries = [query("0"), query("1", "red"), query("2"), query("3", "blue")]
    if not by_dialogue:
        queries = [queries[n] for n in (0, 2, 1, 3)]
    assert dialogues(queries) == [["0", "1"], ["2", "3"]]


def test_ids_that_begin_alike_go_first() -> None:
    """A dialogue that ended with its caption leaves that of another one alone."""
    assert dialogues([query("d0.0"), query("d1.0"), query("d1.1", "red")]) == [["d0.0"], ["d1.0", "d1.1"]]


def test_fieldnotes_dialogues_are_found_again_in_any_order() -> None:
    queries = [each.query for each in load_dialogue("validation").queries]
    expected: dict[str, list[str]] = {}
    for each in queries:
        expected.setdefault(each.id.partition(".")[0], []).append(each.id)
    random.Random(3).shuffle(queries)
    assert sorted(dialogues(queries)) == sorted(expected.values())


def test_a_dialogue_that_ended_stands_as_it_ended() -> None:
    heard = {"a0": 0, "a1": 1, "a3": 3, "b0": 0}
    assert by_round([["a0", "a1", "a3"], ["b0"]], heard) == {0: ["a0", "b0"], 1: ["a1", "b0"], 3: ["a3", "b0"]}


def test_rounds_begin_where_every_dialogue_has_begun() -> None:
    assert by_round([["a0", "a2"], ["b1"]], {"a0": 0, "a2": 2, "b1": 1}) == {1: ["a0", "b1"], 2: ["a2", "b1"]}
    assert by_round([], {}) == {}

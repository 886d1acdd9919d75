"""Differences between two texts, by words."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.service.viewer.word_diff import word_diff

words = st.lists(st.sampled_from(["a", "crab", "on", "the", "reef", " ", "  ", "\n", ",", "?", "é", "{{ query }}"]))
texts = st.one_of(st.text(max_size=200), words.map(" ".join), words.map("".join))


@given(texts, texts)
def test_the_pieces_are_both_texts_to_the_letter(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(text for kind, text in pieces if kind != "in") == old
    assert "".join(text for kind, text in pieces if kind != "out") == new
    assert all(text for _, text in pieces)
    assert all(one[0] != other[0] for one, other in pairwise(pieces))


@given(texts)
def test_a_text_is_the_same_as_itself(text: str) -> None:
    assert word_diff(text, text) == ([("same", text)] if text else [])


@pytest.mark.parametrize(
    ("old", "new", "pieces"),
    [
        (
            "is there a red crab?",
            "is there a blue crab?",
            [("same", "is there a "), ("out", "red"), ("in", "blue"), ("same", " crab?")],
        ),
        (  # a phrase is told as one, and not word by word around the spaces
            "which image matches best",
            "which shows this best",
            [("same", "which "), ("out", "image matches"), ("in", "shows this"), ("same", " best")],
        ),
        ("crab", "crabs", [("out", "crab"), ("in", "crabs")]),
        ("a crab", "a crab today", [("same", "a crab"), ("in", " today")]),
        ("a  crab", "a crab", [("same", "a"), ("out", "  "), ("in", " "), ("same", "crab")]),
        ("", "new", [("in", "new")]),
        ("old", "", [("out", "old")]),
    ],
)
def test_whole_words_are_told_apart(old: str, new: str, pieces: list[tuple[str, str]]) -> None:
    assert word_diff(old, new) == pieces


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("old", "new"), [("a b " * 5000, "b a " * 5000), ("x" * 10_000, "y " * 5000)])
def test_long_texts_do_not_take_minutes(old: str, new: str) -> None:
    """Where every word is a landmark, this does not end before the test's own limit of time."""
    pieces = word_diff(old, new)
    assert "".join(text for kind, text in pieces if kind != "in") == old

"""Answers in words, and probabilities from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.lmm.plain_answer import believed, plain_letter, plain_yes_no, smoothed
from fieldscope.agent.lmm.thinking import marked_line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", "yes"),
        (" yes.", "yes"),
        ("**Yes**, there is a crab.", "yes"),
        ("True", "yes"),
        ("No, it is an owl.", "no"),
        ("\nFALSE", "no"),
        ("nothing", None),
        ("Not that I can see", None),
        ("There is no crab, yes", None),
        ("Y", None),
        ("", None),
        ("...", None),
    ],
)
def test_the_first_word_is_the_answer(text: str, says: str | None) -> None:
    assert plain_yes_no(text) == says


@pytest.mark.parametrize(
    ("text", "choices", "place"),
    [
        ("a", 2, 0),
        ("B", 2, 1),
        (" (B) is the better one", 2, 1),
        ("**C**", 4, 2),
        ("Image A", 2, 0),
        ("Answer: d", 4, 3),
        ("A: the crabs are red", 2, 0),
        ("b\nbecause of the beach", 2, 1),
        ("c", 2, None),
        ("a better match would be b", 2, None),
        ("A heron stands in the water", 2, None),
        ("both", 2, None),
        ("", 2, None),
    ],
)
def test_a_letter_is_a_choice_and_an_article_is_none(text: str, choices: int, place: int | None) -> None:
    assert plain_letter(text, choices) == place


def test_shares_are_smoothed_as_by_krichevsky_and_trofimov() -> None:
    assert smoothed((1, 0)) == (0.75, 0.25)
    assert smoothed((0, 8)) == pytest.approx((0.5 / 9, 8.5 / 9))
    assert smoothed((0, 1, 0, 0)) == pytest.approx((1 / 6, 1 / 2, 1 / 6, 1 / 6))


@given(st.lists(st.integers(0, 100), min_size=2, max_size=4))
def test_no_share_is_0_or_1_and_more_answers_are_a_greater_one(counts: list[int]) -> None:
    shares = smoothed(counts)
    assert sum(shares) == pytest.approx(1) and all(0 < share < 1 for share in shares)
    assert sorted(range(len(counts)), key=lambda i: (counts[i], i)) == sorted(
        range(len(counts)), key=lambda i: (shares[i], i)
    )


def test_a_stated_certainty_is_not_believed_whole() -> None:
    assert (believed(0.0), believed(0.37), believed(1.0)) == (pytest.approx(0.001), 0.37, 0.999)


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("Two crabs.\nAnswer: yes", "yes"),
        ("answer: no", "no"),
        ("It is so.\n**Answer:** Yes", "Yes"),
        ("It is so.\n**Answer**: no", "no"),
        ("## Answer:\nyes", "yes"),
        ("I must end with Answer: yes or Answer: no.\nThere is none.\nAnswer: no", "no"),
        ("Answer: yes\nBut wait.\nAnswer: no", "no"),
        ("I must end with Answer: yes or Answer: no. There", None),
        ("No answer", None),
    ],
)
def test_the_last_line_that_begins_with_the_marker_holds_the_answer(text: str, behind: str | None) -> None:
    line = marked_line(text, "Answer:")
    assert (line and text[line[1] :]) == behind

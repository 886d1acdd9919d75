"""That nothing matches, in words: which sentences are said, and what the nearest images show and lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fieldscope.agent.trace_nothing import NONE_HOLDS, NOT_TOGETHER, Nothing, nothing
from fieldscope.agent.types import NothingMatches, Predicate, RankedCandidate, RerankResult, Verdict

FOX = Predicate(id="fox", question="is there a fox?", kind="subject", words="a fox")
SNOW = Predicate(id="snow", question="is there snow?", kind="habitat", words="in the snow")
NET = Predicate(id="net", question="is there a net?", kind="absence", expected="no")
WHOLE = Predicate(id="query", question="does it match?", kind="query")


def said(
    answers: Mapping[str, Mapping[str, float | None]],
    *predicates: Predicate,
    ranked: int | None = None,
    **known: Any,
) -> Nothing:
    """The view of a decision about the images in `answers`, which have P(expected) by predicate."""
    verdicts = [
        Verdict(predicate=name, image_id=image, state="unknown" if p is None else "answered", p_expected=p)
        for image, own in answers.items()
        for name, p in own.items()
    ]
    ids = [*answers, *(f"other{n}" for n in range((ranked or len(answers)) - len(answers)))]
    ranking = tuple(
        RankedCandidate(image_id=image, rank=n, score=-n, prior=0.0, prior_rank=n, p_match=0.07)
        for n, image in enumerate(ids, start=1)
    )
    decision = NothingMatches(**{"statistic": 0.07, "threshold": 0.3, "judged": len(answers)} | known)
    result = RerankResult(
        query_id="q",
        query_text="a fox in the snow",
        strategy="s",
        ranking=ranking,
        predicates=predicates,
        verdicts=tuple(verdicts),
        nothing=decision,
    )
    view = nothing(result)
    assert view is not None
    return view


def test_the_part_that_no_image_shows_is_named_by_the_querys_words() -> None:
    view = said(
        {"a": {"fox": 0.9, "snow": 0.1}, "b": {"fox": 0.2, "snow": 0.1}}, FOX, SNOW, failing=("snow",), nearest=("a",)
    )
    assert view.sentences == (
        "No image seems to match (best P(match) 0.07, threshold 0.30).",
        "No image shows: in the snow (is there snow?).",
    )
    (near,) = view.nearest
    assert (near.parts, near.missing) == ("1 of 2", "is there snow?")


def test_what_must_be_absent_is_in_every_image() -> None:
    view = said({"a": {"fox": 0.9, "net": 0.1}}, FOX, NET, failing=("net",), nearest=("a",))
    assert view.sentences[1] == "Every image shows what a match must not: is there a net?"


def test_a_part_that_was_asked_about_few_images_says_so() -> None:
    view = said({"a": {"fox": 0.9, "snow": 0.1}, "b": {"fox": 0.2}}, FOX, SNOW, failing=("snow",), nearest=("a",))
    assert view.sentences[1] == "None of the 1 image that was asked about it shows: in the snow (is there snow?)."


def test_parts_that_hold_apart_are_not_together() -> None:
    view = said({"a": {"fox": 0.9, "snow": 0.1}, "b": {"fox": 0.2, "snow": 0.9}}, FOX, SNOW, nearest=("a", "b"))
    assert view.sentences[1:] == (NOT_TOGETHER,)


def test_a_part_that_was_asked_about_no_image_is_not_said_to_be_shown() -> None:
    assert len(said({"a": {"fox": 0.9}, "b": {"fox": 0.2}}, FOX, SNOW, nearest=("a",)).sentences) == 1


def test_no_part_holds_of_any_image() -> None:
    view = said({"a": {"fox": 0.1, "snow": 0.1}}, FOX, SNOW, failing=("fox", "snow"))
    assert view.sentences[1:] == (NONE_HOLDS,)


def test_a_question_without_an_answer_is_neither_held_nor_failed() -> None:
    view = said({"a": {"fox": 0.9, "snow": None}}, FOX, SNOW, nearest=("a",))
    assert view.nearest[0].open == ("is there snow?",)
    assert view.nearest[0].missing == "is there snow? (no answer)"


def test_the_whole_query_is_no_part() -> None:
    view = said({"a": {"query": 0.1}}, WHOLE)
    assert len(view.sentences) == 1
    assert view.nearest == view.failing == ()


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [
        (2, "No image of the 2 images judged seems to match (best P(match) 0.07, threshold 0.30); 3 were not judged."),
        (4, "No image of the 4 images judged seems to match (best P(match) 0.07, threshold 0.30); 1 was not judged."),
    ],
)
def test_images_that_were_not_judged_are_counted(judged: int, sentence: str) -> None:
    assert said({"a": {}}, WHOLE, ranked=5, judged=judged).sentence == sentence


def test_a_result_without_the_decision_has_no_view() -> None:
    assert nothing(RerankResult(query_id="q", query_text="a fox", strategy="s", ranking=())) is None

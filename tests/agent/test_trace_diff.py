"""Two runs of one query: what they share, where they part, and on which images they disagree most."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.trace_diff import diff
from fieldscope.agent.types import RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from tests.agent.traced import NET, RED, agentic, single, verdict


def ranked(order: list[str]) -> RerankResult:
    ranking = tuple(
        RankedCandidate(image_id=i, rank=n, score=-n, prior=0.0, prior_rank=n) for n, i in enumerate(order, start=1)
    )
    return single().model_copy(update={"ranking": ranking})


def test_predicates_are_matched_by_their_question_and_not_by_their_id() -> None:
    again = RED.model_copy(update={"id": "p9", "question": " Is the crab  RED?"})
    size = RED.model_copy(update={"id": "p1", "question": "is the crab small?"})
    other = agentic(
        predicates=(size, again),
        verdicts=(verdict("p9", "blue.png", 0.8, p_yes=0.8), verdict("p1", "blue.png", 0.1, p_yes=0.1)),
        ranking=tuple(reversed([r.model_copy(update={"rank": 5 - r.rank}) for r in agentic().ranking])),
    )
    found = diff(agentic(), other)
    assert (found.common, found.only_a, found.only_b) == ((RED,), (NET,), (size,))
    blue = next(image for image in found.disagreements if image.image_id == "blue.png")
    p = [(s.question, s.a and s.a.p_expected, s.b and s.b.p_expected) for s in blue.said]
    assert p == [("is the crab red?", 0.02, 0.8), ("is there a net?", 0.9, None), ("is the crab small?", None, 0.1)]


def test_a_question_with_another_expected_answer_is_another_predicate() -> None:
    found = diff(agentic(), agentic(predicates=(RED, NET.model_copy(update={"expected": "yes"}))))
    assert (len(found.common), len(found.only_a), len(found.only_b)) == (1, 1, 1)


def test_ranks_and_movement_with_the_head_first() -> None:
    found = diff(ranked(list("abcdefgh")), ranked(list("bacdehgf")))
    assert {image.image_id: image.moved for image in found.images} == dict(
        zip("abcdefgh", (-1, 1, 0, 0, 0, -2, 0, 2), strict=True)
    )
    assert [image.image_id for image in found.disagreements] == ["a", "b", "f", "h"]
    assert found.disagreements[0].gap == pytest.approx(1 - 1 / math.log2(3))


def test_an_image_of_one_run_only_is_there() -> None:
    found = diff(ranked(["a", "b"]), ranked(["c", "a"]))
    assert {image.image_id: image.moved for image in found.images} == {"a": -1, "b": None, "c": None}
    assert found.disagreements[0].image_id == "c"


@given(st.permutations(list("abcdef")))
def test_the_other_way_round_every_movement_is_turned(order: list[str]) -> None:
    there, back = diff(ranked(list("abcdef")), ranked(order)), diff(ranked(order), ranked(list("abcdef")))
    moved = {image.image_id: image.moved for image in there.images}
    assert {image.image_id: -(image.moved or 0) for image in back.images} == moved
    assert sum(value or 0 for value in moved.values()) == 0
    assert bool(there.disagreements) == (order != list("abcdef"))


def test_models_prompts_and_costs() -> None:
    found = diff(agentic(query_text="two crabs"), single())
    assert (found.a.strategy, found.b.strategy) == ("agent", "yes-no")
    assert found.prompts == {"ask": ("1" * 64, None), "match_yes_no": (None, "d" * 64)}
    assert (found.a.model, found.a.strategy_fingerprint, found.b.strategy_fingerprint) == ("e" * 64, "a" * 64, None)
    assert (found.a.ended, found.b.calls, found.b.tokens) == ("compare", 2, 41)


def test_a_run_without_a_beginning_has_no_fingerprints() -> None:
    found = diff(single().model_copy(update={"trace": ()}), single().model_copy(update={"trace": ()}))
    assert (found.a.model, found.prompts) == (None, {})


def test_another_query_under_the_same_id_is_an_error() -> None:
    with pytest.raises(ConfigError, match="different queries 'q1': 'two crabs' and 'a fox'"):
        diff(single(), single("a fox"))
    with pytest.raises(ConfigError, match="different queries"):
        diff(agentic(), agentic(reference_image="1.png"))

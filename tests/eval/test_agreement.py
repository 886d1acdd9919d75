"""Agreement of two runs, by hand and against scikit-learn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.eval.measures.agreement import Sides, agree, agreements, sides


def said(text: str, query: str = "q") -> Sides:
    """One question for each letter: y, n, or - without an answer."""
    return {(query, f"i{n}", "p"): letter == "y" for n, letter in enumerate(text) if letter != "-"}


def test_kappa_by_hand() -> None:
    found = agree("a", said("yyyynnnnny"), "b", said("yyynnnnnny"))
    assert (found.both, found.only_a, found.only_b, found.neither) == (4, 1, 0, 5)
    assert (found.shared, found.queries) == (10, 1)
    assert found.equal == 0.9
    # By chance: 0.5 * 0.4 + 0.5 * 0.6 = 0.5.
    assert found.kappa == pytest.approx((0.9 - 0.5) / (1 - 0.5))


def test_only_shared_questions_count() -> None:
    found = agree("a", said("yn-y") | said("y", "r"), "b", said("y-ny") | said("y", "s"))
    assert (found.shared, found.queries, found.equal) == (2, 1, 1.0)
    assert found.kappa is None  # both said yes to all: chance would have done it
    nothing = agree("a", said("y-"), "b", said("-y"))
    assert (nothing.shared, nothing.queries, nothing.equal, nothing.kappa) == (0, 0, None, None)


def test_agreement_by_chance_and_against_each_other() -> None:
    assert agree("a", said("yynn"), "b", said("ynyn")).kappa == pytest.approx(0)
    assert agree("a", said("yynn"), "b", said("nnyy")).kappa == pytest.approx(-1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2))
def test_kappa_is_scikit_learns(pairs: list[tuple[bool, bool]]) -> None:
    a, b = ("".join("y" if side else "n" for side in column) for column in zip(*pairs, strict=True))
    found = agree("a", said(a), "b", said(b))
    back = agree("b", said(b), "a", said(a))
    assert found.kappa == (None if back.kappa is None else pytest.approx(back.kappa))
    if len(set(a + b)) == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(list(a), list(b)))


def test_the_matrix_has_every_pair_once() -> None:
    runs = {"x": said("yn"), "y": said("yy"), "z": said("nn")}
    assert [(each.a, each.b, each.equal) for each in agreements(runs)] == [
        ("x", "y", 0.5),
        ("x", "z", 0.5),
        ("y", "z", 0.0),
    ]


def test_the_sides_of_a_run() -> None:
    def verdict(predicate: str, image_id: str, p: float | None) -> Verdict:
        state = "answered" if p is not None else "unknown"
        return Verdict.model_validate(
            {"predicate": predicate, "image_id": image_id, "state": state, "p_yes": p, "p_expected": p}
        )

    result = RerankResult(
        query_id="q",
        query_text="red",
        strategy="s",
        ranking=(),
        predicates=(Predicate(id="p", question="red?"),),
        verdicts=(verdict("p", "a", 0.7), verdict("p", "b", 0.5), verdict("p", "c", None), verdict("gone", "a", 0.9)),
    )
    assert sides({"q": result}) == {("q", "a", "p"): True, ("q", "b", "p"): False}

"""The decision that nothing matches: when it is taken, what it names, and what leaves it open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.nothing import NEAREST, NOTHING_BELOW, SAID_NO, nothing_by_answers, nothing_matches
from fieldscope.agent.posterior import Belief
from fieldscope.agent.types import NothingMatches, Predicate, RankedCandidate, RerankResult
from fieldscope.core.types import Candidate

YES, NO, FAILED, UNASKED = 0.99, 0.01, None, -1.0


def belief(
    rows: Sequence[Sequence[float | None]],
    *,
    kinds: Sequence[str] = ("query", "subject", "habitat"),
    calibration: Calibration = UNCALIBRATED,
    cut_short: bool = False,
) -> Belief:
    """Images in prior order; a row says of each predicate P(expected), or that its call failed or was not made."""
    known = np.array([[p is not None and p >= 0 for p in row] for row in rows])
    return Belief(
        candidates=tuple(Candidate(f"i{n}", -float(n)) for n in range(len(rows))),
        predicates=tuple(Predicate(id=f"p{k}", question=f"{k}?", kind=kind) for k, kind in enumerate(kinds)),
        holds=np.array([[0.4 if p is None or p < 0 else p for p in row] for row in rows]),
        finished=np.array([[p is None or p >= 0 for p in row] for row in rows]),
        pass_rates=np.full(len(kinds), 0.4),
        whole=np.array([kind == "query" for kind in kinds]),
        prior=np.zeros(len(rows)),
        calibration=calibration,
        cut_short=cut_short,
        answered=known,
    )


def decided(*rows: Sequence[float | None], **known: object) -> NothingMatches:
    nothing = nothing_matches(belief(rows, **known))  # type: ignore[arg-type]
    assert nothing is not None
    return nothing


def test_nothing_matches_where_every_image_is_refuted() -> None:
    nothing = decided((NO, YES, NO), (NO, NO, NO))
    assert nothing.statistic < nothing.threshold == NOTHING_BELOW
    assert nothing.judged == 2
    assert nothing.failing == ("p2",)


def test_one_image_that_matches_is_enough() -> None:
    assert nothing_matches(belief([(NO, NO, NO), (YES, YES, YES)])) is None


def test_the_nearest_are_ordered_by_parts_and_then_by_prior() -> None:
    rows = [(YES, NO, NO, NO), (NO, YES, NO, NO), (NO, YES, YES, NO), (NO, NO, YES, NO)]
    nothing = decided(*rows, kinds=("query", "subject", "colour", "habitat"))
    assert nothing.nearest == ("i2", "i1", "i3"), "the whole query is no part, and an image without a part is not near"


def test_only_the_nearest_are_kept() -> None:
    assert len(decided(*[(NO, YES, NO)] * (NEAREST + 5)).nearest) == NEAREST


def test_no_part_fails_where_each_holds_of_some_image() -> None:
    assert decided((NO, YES, NO), (NO, NO, YES)).failing == ()


def test_a_part_about_which_no_question_was_answered_does_not_fail() -> None:
    assert decided((NO, NO, FAILED), (NO, NO, UNASKED)).failing == ("p1",)


def test_a_strategy_without_parts_names_none() -> None:
    nothing = decided((NO,), (NO,), kinds=("query",))
    assert (nothing.failing, nothing.nearest) == ((), ())


def test_a_budget_leaves_it_open() -> None:
    assert nothing_matches(belief([(NO, NO, NO)], cut_short=True)) is None


@pytest.mark.parametrize("row", [(FAILED, FAILED, FAILED), (UNASKED, UNASKED, UNASKED)])
def test_images_without_an_answer_decide_nothing(row: Sequence[float | None]) -> None:
    assert nothing_matches(belief([row, row])) is None


def test_an_image_with_a_failed_question_is_judged_only_where_an_answer_refutes_it() -> None:
    assert decided((NO, NO, NO), (NO, FAILED, YES), (FAILED, FAILED, FAILED)).judged == 2
    assert decided((NO, NO, NO), (FAILED, YES, FAILED), calibration=Calibration(bias=-5.0)).judged == 1


def test_an_image_that_may_match_in_spite_of_a_failed_question_leaves_it_open() -> None:
    assert nothing_matches(belief([(NO, NO, NO), (YES, YES, FAILED)])) is None


def test_the_calibration_sets_the_threshold() -> None:
    rows = [(NO, YES, NO)]
    best = belief(rows).p_best
    assert best is not None
    above, below = Calibration(nothing_below=best * 1.01), Calibration(nothing_below=best * 0.99)
    assert decided(*rows, calibration=above).threshold == pytest.approx(best * 1.01)
    assert nothing_matches(belief(rows, calibration=below)) is None


def test_an_unfitted_threshold_is_left_out_of_a_calibration() -> None:
    assert "nothing_below" not in Calibration().model_dump()
    assert Calibration(nothing_below=0.2).model_dump()["nothing_below"] == 0.2


def ranked(*claims: float | None) -> tuple[RankedCandidate, ...]:
    return tuple(
        RankedCandidate(image_id=f"i{n}", rank=n, score=-n, prior=0.0, prior_rank=n, p_match=p)
        for n, p in enumerate(claims, start=1)
    )


def test_a_single_question_decides_by_its_own_probabilities() -> None:
    nothing = nothing_by_answers(ranked(0.2, 0.1, None), cut_short=False)
    assert nothing == NothingMatches(statistic=0.2, threshold=SAID_NO, judged=2)


@pytest.mark.parametrize(("claims", "cut_short"), [((0.5, 0.1), False), ((None, None), False), ((0.2,), True)])
def test_a_single_question_decides_nothing(claims: tuple[float | None, ...], cut_short: bool) -> None:
    assert nothing_by_answers(ranked(*claims), cut_short) is None


def test_a_result_without_the_decision_is_written_as_before() -> None:
    result = RerankResult(query_id="q", query_text="a fox", strategy="clip", ranking=())
    assert "nothing" not in result.model_dump()
    said = result.model_copy(update={"nothing": NothingMatches(statistic=0.1, threshold=0.3, judged=1)})
    assert RerankResult.model_validate_json(said.model_dump_json()) == said

"""Traces are written and read back without loss, and what their views share is counted right."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.trace import result_from_json, result_to_json
from fieldscope.agent.trace_view import (
    error_counts,
    first_shown_wins,
    matchups,
    stage_costs,
    verdicts_by_image,
    weakest,
)
from fieldscope.agent.types import Call, Comparison
from fieldscope.core.errors import ConfigError
from tests.agent.traced import agentic, compared, single, verdict

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.text(), st.text(), finite)
def test_a_result_survives_its_line(text: str, answer: str, prior: float) -> None:
    result = single(text, answer, prior)
    line = result_to_json(result)
    assert "\n" not in line
    assert result_from_json(line) == result


def test_every_part_of_an_agents_result_survives() -> None:
    assert result_from_json(result_to_json(agentic())) == agentic()


def test_the_smallest_step_between_scores_survives() -> None:
    result = single(prior=math.nextafter(0.1 + 0.2, 1.0))
    assert result_from_json(result_to_json(result)).ranking[0].prior == math.nextafter(0.1 + 0.2, 1.0)


def test_a_cut_off_line_and_a_foreign_one_are_errors_in_one_line() -> None:
    line = result_to_json(single())
    for bad in (line[:-20], "", "[]", line.replace('"flags"', '"flgs"')):
        with pytest.raises(ConfigError, match="not a rerank result of this version") as caught:
            result_from_json(bad)
        assert "\n" not in str(caught.value)


def test_both_orders_of_a_pair_stand_side_by_side() -> None:
    found = matchups(agentic().comparisons)
    assert [m.images for m in found] == [("fine.png", "twin.png"), ("fine.png", "net.png"), ("twin.png", "net.png")]
    assert [m.agree for m in found] == [True, False, None]
    assert [found[0].p_best(c) for c in found[0].comparisons] == [
        (0.7, pytest.approx(0.3)),
        (0.6, 0.4),
    ]
    assert found[2].p_best(found[2].comparisons[0]) == ()
    # (0.7 + 0.4 + 0.8 + 0.6) / 4: the pair without an answer in both orders says nothing about position.
    assert first_shown_wins(found) == pytest.approx(0.625)


def test_the_same_order_twice_is_no_second_order() -> None:
    (once,) = matchups([compared(("a", "b"), 0.9), compared(("a", "b"), 0.2)])
    assert once.agree is None


def test_sets_agree_where_the_best_is_the_same() -> None:
    forwards, backwards = compared(("a", "b", "c"), 0.5), compared(("c", "b", "a"), 0.6)
    assert [m.agree for m in matchups([forwards, backwards])] == [False]
    same = Comparison(shown=("c", "b", "a"), probabilities=(0.2, 0.2, 0.6), state="answered")
    assert [m.agree for m in matchups([forwards, same])] == [True]


def test_an_answer_counts_before_a_failure_and_a_question_of_its_own_before_a_joint_one() -> None:
    verdicts = (
        verdict("query", "a.png", 0.3, p_yes=0.3),
        verdict("query", "a.png", 0.9, p_yes=0.9, joint=True),
        verdict("query", "a.png", None, state="unknown", error="late"),
    )
    assert verdicts_by_image(single().model_copy(update={"verdicts": verdicts})) == {"a.png": {"query": verdicts[0]}}


def test_a_predicate_that_was_given_up_counts_no_more() -> None:
    gone = verdict("p0", "fine.png", 0.01, p_yes=0.01)
    assert "p0" not in verdicts_by_image(agentic(verdicts=(gone, *agentic().verdicts)))["fine.png"]


def test_the_weakest_is_the_lowest_answer_and_without_one_the_failure() -> None:
    low, high = verdict("p1", "a", 0.2), verdict("p2", "a", 0.6)
    unknown, never = verdict("p3", "a", None, state="unknown"), verdict("p4", "a", None, state="not_asked")
    assert weakest([never, unknown, high, low]) == low
    assert weakest([never, unknown]) == unknown
    assert weakest([never]) == never
    assert weakest([]) is None


def test_each_stage_tells_its_calls_and_what_it_moved() -> None:
    costs = {cost.stage: cost for cost in stage_costs(agentic())}
    assert list(costs) == ["synthesize", "verify", "compare", "explain", "rank"]
    verify = costs["verify"]
    usage = verify.usage
    assert (usage.calls, usage.cached, usage.unknown, usage.prompt_tokens) == (8, 4, 1, 350)
    assert costs["compare"].usage.unknown == 1
    # From the prior's blue, fine, twin, net; without the comparisons fine 1.7, twin 1.4, net -0.5, blue -4.2.
    assert verify.moved == {"fine.png": 1, "twin.png": 1, "net.png": 1, "blue.png": -3}
    assert costs["compare"].moved == {"net.png": -1, "blue.png": 1}
    assert costs["rank"].moved == {"fine.png": 1, "twin.png": 1, "blue.png": -2}
    assert costs["synthesize"].moved is None


def test_one_stage_alone_moved_everything_and_two_without_contributions_can_not_be_told_apart() -> None:
    moved = {cost.stage: cost.moved for cost in stage_costs(single())}
    assert moved == {"verify": {"a.png": 1, "b.png": -1}, "rank": {"a.png": 1, "b.png": -1}}
    bare = tuple(r.model_copy(update={"contributions": {}}) for r in agentic().ranking)
    assert {c.stage for c in stage_costs(agentic(ranking=bare)) if c.moved is not None} == {"rank"}


def test_every_unknown_is_counted_with_its_error() -> None:
    calls = (Call(stage="caption", state="unknown", error="no server"),)
    assert error_counts(agentic(calls=calls)) == {"timed out": 2, "no server": 1}

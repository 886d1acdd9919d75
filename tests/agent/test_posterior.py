"""What is believed of candidates: the product of predicates, the prior beside it, and nothing from silence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.agreement import agreement, agreement_order
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.context import Context
from fieldscope.agent.fusion import log_odds
from fieldscope.agent.match_odds import log_odds_of_all, tempered
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.posterior import PASS_RATE, believe
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.agent.verdicts import latest
from fieldscope.core.types import Candidate, Query, Scale

PREDICATES = (
    Predicate(id="a", question="is there a crab?", kind="subject"),
    Predicate(id="b", question="is it red?", kind="subject"),
)
WHOLE = Predicate(id="query", question="is it a red crab?", kind="query")
STRATEGY = load_strategy("predicates", prompts="fieldnotes")


class NoImages:
    def load(self, image_id):
        raise NotImplementedError

    def pixel_hash(self, image_id):
        raise NotImplementedError


DEPS = Resources(images=NoImages())
FLAT = Resources(images=NoImages(), calibration=Calibration(prior_weight=0.0, miss_odds=0.0, false_alarm_odds=0.0))


def said(image_id: str, predicate: str, p: float | None, *, joint: bool = False) -> Verdict:
    state = "unknown" if p is None else "answered"
    return Verdict(predicate=predicate, image_id=image_id, state=state, p_yes=p, p_expected=p, joint=joint)


def state(*verdicts: Verdict, images: int = 3) -> RerankState:
    candidates = tuple(Candidate(f"i{n}", 1.0 - n / 10) for n in range(images))
    return RerankState(
        query=Query(id="q", text="a red crab"), candidates=candidates, predicates=PREDICATES, verdicts=verdicts
    )


@pytest.mark.parametrize(
    ("holds", "expected"),
    [([0.9, 0.8], log_odds(0.72)), ([0.5], 0.0), ([1e-30, 0.5], math.log(0.5e-12)), ([], 0.0)],
)
def test_log_odds_that_all_hold(holds: list[float], expected: float) -> None:
    assert log_odds_of_all(np.array([holds]))[0] == pytest.approx(expected, abs=1e-6)


def test_certainty_stays_finite() -> None:
    assert np.isfinite(log_odds_of_all(np.array([[1.0, 1.0], [0.0, 0.0]]))).all()


def test_by_hand() -> None:
    belief = believe(state(said("i0", "a", 0.9), said("i0", "b", 0.8), said("i1", "a", 0.1)), FLAT, STRATEGY)
    assert belief.pass_rates == pytest.approx([PASS_RATE, PASS_RATE])
    assert belief.p_match == pytest.approx([0.72, 0.1 * PASS_RATE, PASS_RATE * PASS_RATE])
    assert belief.finished.tolist() == [[True, True], [True, False], [False, False]]
    assert belief.order() == [0, 2, 1]


def test_without_verdicts_the_prior_orders() -> None:
    belief = believe(state(), DEPS, STRATEGY)
    assert belief.order() == [0, 1, 2]
    assert np.diff(belief.log_odds) == pytest.approx([-0.5 * math.sqrt(1.5)] * 2)


def test_the_calibration_tempers_weighs_and_shifts() -> None:
    fitted = Calibration(
        temperature=2.0, prior_weight=1.0, bias=-1.0, miss_odds=0.0, false_alarm_odds=0.0, pass_rates={"subject": 0.25}
    )
    belief = believe(
        state(said("i1", "a", 0.9), said("i1", "b", 0.9)), Resources(NoImages(), calibration=fitted), STRATEGY
    )
    # The middle prior is 0 when standardised.
    assert belief.log_odds[1] == pytest.approx(-1.0 + log_odds(0.9**2) / 2)
    assert belief.pass_rates[0] == 0.25


def test_the_whole_query_is_a_second_opinion() -> None:
    fitted = Calibration(
        temperature=2.0,
        whole_weight=0.5,
        prior_weight=0.0,
        miss_odds=0.0,
        false_alarm_odds=0.0,
        pass_rates={"query": 0.2},
    )
    now = state(said("i0", "a", 0.9), said("i0", "b", 0.9), said("i0", "query", 0.8), images=2)
    now = now.model_copy(update={"predicates": (WHOLE, *PREDICATES)})
    belief = believe(now, Resources(NoImages(), calibration=fitted), STRATEGY)
    assert belief.log_odds[0] == pytest.approx(0.5 * log_odds(0.8) + log_odds(0.9**2) / 2)
    parts = belief.contributions(0)
    assert set(parts) == {"base", "prior", "query", "a", "b"}
    assert parts["query"] == pytest.approx(0.5 * (log_odds(0.8) - log_odds(belief.pass_rates[0])))
    deaf = believe(now, Resources(NoImages(), calibration=fitted.model_copy(update={"whole_weight": 0.0})), STRATEGY)
    assert deaf.contributions(0)["query"] == 0.0


def test_where_nothing_seems_to_match_the_prior_decides() -> None:
    said_no = [said("i0", "a", 0.001), said("i0", "b", 0.001), said("i1", "a", 0.0001), said("i1", "b", 0.001)]
    for doubt, first in ((0.0, 2), (0.01, 0)):
        verdicts = [*said_no, said("i2", "a", 0.002), said("i2", "b", 0.002)]
        deps = Resources(NoImages(), calibration=Calibration(miss_odds=doubt))
        assert believe(state(*verdicts), deps, STRATEGY).order()[0] == first
    assert tempered(np.array([0.0]), 0.3, 0.2) == pytest.approx([0.0])
    assert tempered(np.array([-50.0]), 0.25, 0.0) == pytest.approx([math.log(0.25 / 1.25)])


def test_where_everything_seems_to_match_the_prior_decides() -> None:
    verdicts = [said("i0", "a", 0.999), said("i0", "b", 0.999), said("i2", "a", 0.9999), said("i2", "b", 0.9999)]
    for slip, first in ((0.0, 2), (0.02, 0)):
        deps = Resources(NoImages(), calibration=Calibration(false_alarm_odds=slip))
        assert believe(state(*verdicts), deps, STRATEGY).order()[0] == first
    assert tempered(np.array([50.0]), 0.0, 0.25) == pytest.approx([math.log(1.25 / 0.25)])


@pytest.mark.parametrize("edition", [1, 2])
def test_only_the_first_edition_doubts_more_where_nothing_is_confirmed(edition: Literal[1, 2]) -> None:
    fitted = Calibration(edition=edition, prior_weight=0.0, miss_odds=0.001, false_alarm_odds=0.0)
    refused = [said(f"i{n}", name, 0.001) for n in range(2) for name in "ab"]
    for last, floor in ((0.999, 0.001), (0.3, 0.2 if edition == 1 else 0.001)):
        verdicts = [*refused, said("i2", "a", last), said("i2", "b", last)]
        belief = believe(state(*verdicts), Resources(NoImages(), calibration=fitted), STRATEGY)
        assert belief.log_odds[0] == pytest.approx(math.log(floor / (1 + floor)), abs=0.01)
        cut = state(*verdicts).model_copy(update={"ended": "verify"})
        assert believe(cut, Resources(NoImages(), calibration=fitted), STRATEGY).log_odds[0] < math.log(0.002)


@given(
    stands=st.lists(st.floats(-3.0, 6.0), min_size=2, max_size=8),
    answers=st.lists(st.one_of(st.none(), st.floats(0.001, 0.999)), min_size=16, max_size=16),
    data=st.data(),
)
def test_p_match_depends_on_no_other_candidate(
    stands: list[float], answers: list[float | None], data: st.DataObject
) -> None:
    """With standings, or with a fitted scale of the priors; only what is standardised over the list is relative."""
    verdicts = [
        said(f"i{n}", name, p)
        for n in range(len(stands))
        for name, p in zip("ab", answers[2 * n : 2 * n + 2], strict=True)
        if p is not None
    ]
    known = [Candidate(f"i{n}", 1.0 + stand / 10, stand) for n, stand in enumerate(stands)]
    some = data.draw(st.lists(st.sampled_from(known), min_size=1, unique_by=lambda candidate: candidate.image_id))
    for scale in (None, Scale(mean=0.1, deviation=0.2)):
        fitted = Calibration(prior_scale=scale)
        for deps in (DEPS, Resources(NoImages(), calibration=fitted)):
            given_only = scale is not None and deps.calibration is not None
            both = [
                believe(
                    RerankState(
                        query=Query(id="q", text="a fox"),
                        candidates=tuple(replace(c, standing=None) if given_only else c for c in found),
                        predicates=PREDICATES,
                        verdicts=tuple(verdicts),
                    ),
                    deps,
                    STRATEGY,
                )
                for found in (known, some)
            ]
            assert not any(belief.relative for belief in both)
            whole = dict(zip((c.image_id for c in known), both[0].p_match, strict=True))
            for candidate, p in zip(some, both[1].p_match, strict=True):
                assert p == pytest.approx(whole[candidate.image_id], abs=1e-12)


def test_without_a_background_or_a_fitted_scale_p_match_is_relative() -> None:
    assert believe(state(), DEPS, STRATEGY).relative
    assert believe(state(), Resources(NoImages(), calibration=Calibration()), STRATEGY).relative
    unfound = state().model_copy(update={"candidates": (Candidate("a", 0.0), Candidate("b", 0.0))})
    assert not believe(unfound, DEPS, STRATEGY).relative, "without a first stage there is nothing to standardise"


def test_a_failed_question_is_settled_and_says_nothing() -> None:
    belief = believe(state(said("i0", "a", None)), FLAT, STRATEGY)
    assert belief.finished[0, 0] and belief.log_odds[0] == belief.log_odds[1]


probability = st.floats(1e-5, 1 - 1e-5)


@given(st.lists(st.one_of(st.none(), probability), min_size=6, max_size=6), st.floats(-3, 3), st.floats(0.3, 4))
def test_contributions_sum_to_the_score(answers: list[float | None], bias: float, temperature: float) -> None:
    verdicts = [said(f"i{n // 2}", "ab"[n % 2], p) for n, p in enumerate(answers)]
    deps = Resources(NoImages(), calibration=Calibration(bias=bias, temperature=temperature))
    belief = believe(state(*verdicts), deps, STRATEGY)
    for i in range(3):
        parts = belief.contributions(i)
        assert set(parts) == {"base", "prior", "a", "b"}
        assert sum(parts.values()) == pytest.approx(belief.log_odds[i], abs=1e-6)


@given(probability, probability, probability)
def test_a_better_answer_never_lowers_an_image(p: float, better: float, other: float) -> None:
    low, high = sorted((p, better))
    before = believe(state(said("i0", "a", low), said("i0", "b", other)), FLAT, STRATEGY).log_odds[0]
    after = believe(state(said("i0", "a", high), said("i0", "b", other)), FLAT, STRATEGY).log_odds[0]
    assert after >= before


def test_a_question_of_its_own_outweighs_a_joint_one_and_an_answer_a_failure() -> None:
    alone, together = said("i0", "a", 0.2), said("i0", "a", 0.9, joint=True)
    assert latest([alone, together]) == latest([together, alone]) == [alone]
    failed = said("i0", "a", None)
    assert latest([together, failed]) == latest([failed, together]) == [together]
    second = said("i0", "a", 0.7)
    assert latest([alone, second]) == [second]


def test_agreement_counts_and_keeps_the_prior_order() -> None:
    verdicts = [said("i0", "a", 0.9), said("i0", "b", 0.2), said("i1", "a", 0.9), said("i1", "b", 0.9)]
    verdicts += [said("i2", "a", 0.6), said("i2", "b", None)]
    now = state(*verdicts, images=4)
    assert agreement(now, 3) == [1.0, 2.0, 1.5]
    assert agreement_order(now, 3) == ["i1", "i2", "i0", "i3"]


def test_where_nothing_is_confirmed_more_parts_come_before_a_better_prior() -> None:
    """And P(match) stays what it was."""
    verdicts = [
        *(said("i0", name, 0.01) for name in "ab"),
        said("i1", "a", 0.9), said("i1", "b", 0.001),
        said("i2", "a", 0.001), said("i2", "b", 0.6),
    ]  # fmt: skip
    fitted = Calibration(prior_weight=6.0, bias=-9.0)
    now = state(*verdicts)
    result: RerankResult = rank(now, Context(Resources(NoImages(), calibration=fitted), STRATEGY))["result"]
    assert result.nothing is not None
    assert [ranked.image_id for ranked in result.ranking] == ["i1", "i2", "i0"]
    belief = believe(now, Resources(NoImages(), calibration=fitted), STRATEGY)
    assert [ranked.p_match for ranked in result.ranking] == pytest.approx([belief.p_match[n] for n in (1, 2, 0)])
    assert all(sum(r.contributions.values()) == pytest.approx(r.score) for r in result.ranking)


def test_beside_a_reference_the_prior_ranks_where_nothing_is_confirmed() -> None:
    """A reference that was described wrongly refutes its matches. P(match) stays what it was."""
    verdicts = [
        *(said("i0", name, 0.01) for name in "ab"),
        said("i1", "a", 0.9), said("i1", "b", 0.4),
        said("i2", "a", 0.001), said("i2", "b", 0.6),
    ]  # fmt: skip
    kept = Calibration(prior_weight=0.5, bias=-2.0, composed_nothing_below=0.0)
    now = state(*verdicts)
    composed = now.model_copy(update={"query": now.query.model_copy(update={"reference_image": "r"})})
    shown: RerankResult = rank(composed, Context(Resources(NoImages(), calibration=kept), STRATEGY))["result"]
    assert shown.nothing is None, "whether that is said is another decision"
    assert [ranked.image_id for ranked in shown.ranking] == ["i0", "i1", "i2"]
    belief = believe(composed, Resources(NoImages(), calibration=kept), STRATEGY)
    assert [ranked.p_match for ranked in shown.ranking] == pytest.approx(belief.p_match)
    assert all(sum(r.contributions.values()) == pytest.approx(r.score) for r in shown.ranking)
    assert any("first_stage" in r.contributions for r in shown.ranking)

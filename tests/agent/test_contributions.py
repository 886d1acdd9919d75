"""What a belief's score is made of, in whatever order its predicates are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.posterior import Belief
from fieldscope.agent.types import Predicate
from fieldscope.core.types import Candidate

answers = st.lists(st.one_of(st.none(), st.floats(1e-6, 1 - 1e-6)), min_size=1, max_size=6)
calibrations = st.builds(
    Calibration,
    temperature=st.floats(0.3, 4),
    whole_weight=st.floats(0, 2),
    miss_odds=st.sampled_from([0.0, 0.001, 0.2]),
    false_alarm_odds=st.sampled_from([0.0, 0.03]),
    bias=st.floats(-3, 3),
)


def belief(said: list[float | None], calibration: Calibration, whole: bool) -> Belief:
    """One image, asked about the whole query as well or not."""
    k = len(said)
    rates = np.linspace(0.2, 0.8, k)
    kinds = ["query" if whole and n == 0 else "subject" for n in range(k)]
    return Belief(
        candidates=(Candidate("i", 1.0),),
        predicates=tuple(Predicate(id=f"p{n}", question=f"{n}?", kind=kind) for n, kind in enumerate(kinds)),
        holds=np.array([[rate if p is None else p for p, rate in zip(said, rates, strict=True)]]),
        finished=np.ones((1, k), dtype=np.bool_),
        pass_rates=rates,
        whole=np.array([kind == "query" for kind in kinds]),
        prior=np.array([0.7]),
        calibration=calibration,
    )


def in_order(told: Belief, order: list[int]) -> Belief:
    return replace(
        told,
        predicates=tuple(told.predicates[n] for n in order),
        holds=told.holds[:, order],
        pass_rates=told.pass_rates[order],
        whole=told.whole[order],
    )


@given(answers, calibrations, st.booleans(), st.randoms())
def test_the_order_of_predicates_changes_no_contribution(
    said: list[float | None], calibration: Calibration, whole: bool, chance: object
) -> None:
    told = belief(said, calibration, whole)
    order = list(range(len(said)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    parts, again = told.contributions(0), in_order(told, order).contributions(0)
    assert again == pytest.approx(parts, abs=1e-6)
    assert sum(parts.values()) == pytest.approx(told.log_odds[0], abs=1e-6)
    for n, p in enumerate(said):
        if p is None:
            assert parts[f"p{n}"] == 0.0


@given(st.floats(0.01, 0.99), st.integers(2, 5), calibrations)
def test_predicates_that_say_the_same_count_the_same(p: float, k: int, calibration: Calibration) -> None:
    told = belief([p] * k, calibration, whole=False)
    parts = replace(told, pass_rates=np.full(k, 0.4)).contributions(0)
    assert [parts[f"p{n}"] for n in range(k)] == pytest.approx([parts["p0"]] * k, abs=1e-9)


def test_the_doubt_is_that_of_all_answers() -> None:
    """It would be another one, and greater, for a coalition without answers, which confirms nothing."""
    told = belief([0.99, 0.98], Calibration(miss_odds=0.01, false_alarm_odds=0.0, bias=-1.0), whole=False)
    assert told.log_odds[0] > 0
    without_answers = float(np.logaddexp(np.log(0.16 / 0.84), np.log(0.01)) - np.log1p(0.01))
    assert told.contributions(0)["base"] == pytest.approx(-1.0 + without_answers)


def test_thirteen_answers_are_counted_exactly() -> None:
    said: list[float | None] = list(np.linspace(0.05, 0.95, 13))
    told = belief(said, Calibration(), whole=True)
    parts = told.contributions(0)
    assert sum(parts.values()) == pytest.approx(told.log_odds[0], abs=1e-9)
    assert in_order(told, list(range(13))[::-1]).contributions(0) == pytest.approx(parts, abs=1e-9)

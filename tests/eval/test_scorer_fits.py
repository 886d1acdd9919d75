"""The weights of prior and scorer: what is planted is found, and a scorer that tells nothing weighs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fieldscope.eval.tuning.fitting import Floats, fit_first_look, fit_scored, fit_verdicts

RNG = np.random.default_rng


def planted(seed: int, prior: float, scorer: float, bias: float = -2.0) -> tuple[Floats, Floats, Floats]:
    """Prior, scores and judgments of 6,000 images whose log-odds are bias + prior x + scorer y."""
    rng = RNG(seed)
    x, y = rng.standard_normal((2, 6000))
    relevant = rng.random(6000) < 1 / (1 + np.exp(-(bias + prior * x + scorer * y)))
    return x, y, relevant.astype(np.float64)


def test_a_first_look_finds_both_weights() -> None:
    look = fit_first_look(*planted(0, prior=0.7, scorer=1.8))
    assert (look.bias, look.prior_weight, look.scorer_weight) == pytest.approx((-2.0, 0.7, 1.8), abs=0.15)


@pytest.mark.parametrize("scorer", [0.0, -1.0])
def test_a_useless_or_reversed_scorer_weighs_nothing(scorer: float) -> None:
    x, y, relevant = planted(1, prior=0.7, scorer=scorer)
    look = fit_first_look(x, y, relevant)
    assert look.scorer_weight == 0.0 and look.prior_weight > 0.5
    nothing = np.empty((len(x), 0))
    assert fit_verdicts(x, nothing, np.zeros(len(x)), relevant, y).scorer_weight == 0.0


def test_beside_verdicts_the_scorer_has_a_weight_and_without_one_nothing_changes() -> None:
    x, y, relevant = planted(2, prior=0.5, scorer=1.5)
    nothing, whole = np.empty((len(x), 0)), np.zeros(len(x))
    fit = fit_verdicts(x, nothing, whole, relevant, y)
    assert (fit.prior_weight, fit.scorer_weight) == pytest.approx((0.5, 1.5), abs=0.15)
    plain = fit_verdicts(x, nothing, whole, relevant)
    useless = fit_verdicts(x, nothing, whole, relevant, RNG(3).standard_normal(len(x)))
    assert useless == plain and plain.scorer_weight == 0.0


def test_the_scale_of_scored_predicates_is_found() -> None:
    rng = RNG(4)
    scores = rng.standard_normal((6000, 2))
    expected = np.tile([1.0, -1.0], (6000, 1))
    holds = 1 / (1 + np.exp(-expected * (1.0 + 3.0 * scores)))
    relevant = rng.random(6000) < holds.prod(axis=1)
    scores[:3000, 1] = np.inf  # a query with one predicate only
    relevant[:3000] = rng.random(3000) < holds[:3000, 0]
    assert fit_scored(scores, expected, relevant) == pytest.approx((3.0, 1.0), abs=0.3)

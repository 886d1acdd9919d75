"""Maximum likelihood fits of what turns answers into probabilities: pure, on arrays.

Those without bounds of their own are penalised like by a Gaussian prior of standard deviation 1 around the default, so
that a handful of examples can't run away; with hundreds of them the penalty is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_ndtr

from fieldscope.agent.bradley_terry import Showing, merge_comparisons
from fieldscope.agent.calibration import UNCALIBRATED, FirstLook
from fieldscope.agent.match_odds import Answers, log_odds_of_all, log_odds_of_match

Floats = NDArray[np.float64]

PAYS = 2.706
"""Twice the gain in log-likelihood that a weight of at least 0 reaches by chance once in twenty times."""

_TEMPERATURE = (0.2, 10.0)
_WHOLE_WEIGHT = (0.0, 5.0)
_DOUBT = (1e-6, 0.1)
_SLIP = (1e-6, 0.2)
_PRIOR_WEIGHT = (0.0, 10.0)
_SCALE = (0.0, 10.0)
_OFFSET = (-10.0, 10.0)
_BIAS = (-10.0, 10.0)
_PART_COST = (0.0, 10.0)
_COMPARISON_WEIGHTS = tuple(np.geomspace(1e-3, 10.0, 25).tolist())
_SPREAD = (0.05, 10.0)
_FEWEST = 20  # queries, of which one is the share of false alarms
_LEAST_P = 1e-6


@dataclass(frozen=True)
class VerdictFit:
    """P(match) as the ranking has it: `fieldscope.agent.match_odds.log_odds_of_match` after bias + prior_weight * prior
    + scorer_weight * score."""

    temperature: float
    whole_weight: float
    miss_odds: float
    false_alarm_odds: float
    prior_weight: float
    bias: float
    part_cost: float = 0.0
    scorer_weight: float = 0.0

    def log_odds(self, prior: Floats, verdicts: Floats, whole: Floats, scored: Floats | None = None) -> Floats:
        """(n,) log-odds of a match. `prior` (n,) are the priors' standings; `verdicts` (n, k) are the log-odds of the
        expected answers, infinity where a query has fewer than k predicates; without any they say nothing. `whole` (n,)
        are those of the answer about the whole query, 0 where it was not asked. `scored` (n,) are the scores of a
        scoring model, standardised like the prior; None where there is none."""
        holds = 1.0 / (1.0 + np.exp(-np.asarray(verdicts)))
        parts = np.where(np.isinf(verdicts).all(axis=1), 0.0, log_odds_of_all(holds))
        given = self.bias + self.prior_weight * prior + (0.0 if scored is None else self.scorer_weight * scored)
        return log_odds_of_match(given, Answers(parts, whole, (1.0 - holds).sum(axis=1)), self)


def fit_verdicts(
    prior: Floats, verdicts: Floats, whole: Floats, relevant: ArrayLike, scored: Floats | None = None
) -> VerdictFit:
    """The fit to n judged candidates: `prior` (n,), `verdicts` (n, k), `whole` (n,) and `scored` (n,) as in
    `VerdictFit.log_odds`, `relevant` (n,) 0 or 1. Parameters without verdicts keep their defaults; the scorer's weight
    is 0 unless it makes the judgments more likely than chance would. Raises ValueError without a candidate."""
    sides = 2.0 * np.asarray(relevant, dtype=np.float64) - 1.0
    if not sides.size:
        raise ValueError("there is no candidate to fit to")
    usual = UNCALIBRATED
    temperature, miss_odds, false_alarm_odds = np.log((usual.temperature, usual.miss_odds, usual.false_alarm_odds))
    default = np.array(
        [temperature, usual.whole_weight, miss_odds, false_alarm_odds, usual.prior_weight, usual.bias, usual.part_cost]
    )

    def fit_at(values: Floats) -> VerdictFit:
        temperature, whole, miss_odds, false_alarm_odds, prior_weight, bias, cost, *scorer = map(float, values)
        temperature, miss_odds, false_alarm_odds = (
            float(np.exp(value)) for value in (temperature, miss_odds, false_alarm_odds)
        )
        return VerdictFit(temperature, whole, miss_odds, false_alarm_odds, prior_weight, bias, cost, *scorer)

    def surprise(fit: VerdictFit) -> float:
        return float(np.logaddexp(0.0, -sides * fit.log_odds(prior, verdicts, whole, scored)).sum())

    def fitted(default: Floats) -> VerdictFit:
        def loss(values: Floats) -> float:
            return surprise(fit_at(values)) + float(0.5 * ((values - default) ** 2).sum())

        return fit_at(minimize(loss, default, method="L-BFGS-B", bounds=bounds[: len(default)]).x)

    temperatures, doubts, slips = (tuple(np.log(bound)) for bound in (_TEMPERATURE, _DOUBT, _SLIP))
    bounds = [temperatures, _WHOLE_WEIGHT, doubts, slips, _PRIOR_WEIGHT, _BIAS, _PART_COST, _SCALE]
    without = fitted(default)
    if scored is None:
        return without
    with_scorer = fitted(np.append(default, 0.0))
    return with_scorer if 2 * (surprise(without) - surprise(with_scorer)) > PAYS else without


def fit_first_look(prior: Floats, scored: Floats, relevant: ArrayLike) -> FirstLook:
    """What prior (n,) and scores (n,) say of n judged candidates before any question, both standardised per query,
    `relevant` (n,) 0 or 1: a logistic regression. A weight that makes the judgments no more likely than chance would is
    0."""
    sides = 2.0 * np.asarray(relevant, dtype=np.float64) - 1.0
    parts = np.stack([np.ones_like(prior), prior, scored], axis=1)

    def surprise(values: Floats) -> float:
        return float(np.logaddexp(0.0, -sides * (parts @ values)).sum())

    def fitted(*unused: int) -> Floats:
        bounds = [_BIAS, _PRIOR_WEIGHT, _SCALE]
        for place in unused:
            bounds[place] = (0.0, 0.0)

        def loss(values: Floats) -> float:
            return surprise(values) + float(0.5 * (values[1:] ** 2).sum())

        return np.asarray(minimize(loss, np.zeros(3), method="L-BFGS-B", bounds=bounds).x)

    unused: list[int] = []
    best = fitted()
    for place in (2, 1):
        without = fitted(*unused, place)
        if 2 * (surprise(without) - surprise(best)) <= PAYS:
            unused.append(place)
            best = without
    bias, prior_weight, scorer_weight = map(float, best)
    return FirstLook(bias=bias, prior_weight=prior_weight, scorer_weight=scorer_weight)


def fit_scored(scores: Floats, expected: Floats, relevant: ArrayLike) -> tuple[float, float]:
    """Scale and offset at which a scoring model's standardised scores of predicates, (n, k) and infinity where a query
    has fewer than k, are log-odds that they hold: those that make the judgments of n images most likely, where a match
    satisfies all. `expected` (n, k) is 1 for the answer yes and -1 for no, `relevant` (n,) 0 or 1."""
    sides = 2.0 * np.asarray(relevant, dtype=np.float64) - 1.0
    asked = np.isfinite(scores)
    default = np.array([UNCALIBRATED.scored_scale, UNCALIBRATED.scored_offset])

    def loss(values: Floats) -> float:
        odds = np.where(asked, expected * (values[1] + values[0] * np.where(asked, scores, 0.0)), np.inf)
        log_odds = log_odds_of_all(1.0 / (1.0 + np.exp(-odds)))
        return float(np.logaddexp(0.0, -sides * log_odds).sum() + 0.5 * ((values - default) ** 2).sum())

    scale, offset = minimize(loss, default, method="L-BFGS-B", bounds=[_SCALE, _OFFSET]).x
    return float(scale), float(offset)


@dataclass(frozen=True)
class JointFit:
    """What makes joint answers count like single ones: their log-odds over `temperature`, those of the whole query
    times `whole_weight`."""

    temperature: float
    whole_weight: float

    def as_single(self, verdicts: Floats, whole: Floats) -> tuple[Floats, Floats]:
        """(n, k) and (n,) log-odds of joint answers, as they count beside single ones."""
        return verdicts / self.temperature, self.whole_weight * whole


def fit_joint(
    fit: VerdictFit,
    prior: Floats,
    verdicts: Floats,
    whole: Floats,
    relevant: ArrayLike,
    scored: Floats | None = None,
) -> JointFit:
    """The fit to n judged candidates whose questions were asked together, given the `fit` to single questions. The
    arrays are those of `fit_verdicts`."""
    sides = 2.0 * np.asarray(relevant, dtype=np.float64) - 1.0
    default = np.array([np.log(UNCALIBRATED.joint_temperature), UNCALIBRATED.joint_whole_weight])

    def fit_at(values: Floats) -> JointFit:
        return JointFit(float(np.exp(values[0])), float(values[1]))

    def loss(values: Floats) -> float:
        log_odds = fit.log_odds(prior, *fit_at(values).as_single(verdicts, whole), scored)
        return float(np.logaddexp(0.0, -sides * log_odds).sum() + 0.5 * ((values - default) ** 2).sum())

    temperatures: tuple[float, float] = tuple(np.log(_TEMPERATURE))
    return fit_at(minimize(loss, default, method="L-BFGS-B", bounds=[temperatures, _WHOLE_WEIGHT]).x)


@dataclass(frozen=True)
class Compared:
    """n images of one query that were compared with each other: `log_odds` (n,) of a match before, `showings` of their
    indices with P(best) of each, and `relevant` (n,) 0 or 1."""

    log_odds: Floats
    showings: tuple[Showing, ...]
    relevant: NDArray[np.int64]


def fit_comparison_weight(queries: Sequence[Compared], spread: float, position_bias: float) -> float:
    """The weight at which merged comparisons, as `agent/bradley_terry.py` merges them, make the judgments of the images
    that were compared most likely; 0 where they become no more likely than chance would make them."""

    def surprise(weight: float) -> float:
        total = 0.0
        for query in queries:
            after = merge_comparisons(
                query.log_odds, spread, query.showings, weight=weight, position_bias=position_bias
            )
            total += float(np.logaddexp(0.0, (1.0 - 2.0 * query.relevant) * after.mean).sum())
        return total

    best = min(_COMPARISON_WEIGHTS, key=surprise)
    return float(best) if 2 * (surprise(0.0) - surprise(best)) > PAYS else 0.0


FALSE_ALARMS = 0.05
"""The share of queries with a match of which nothing may be said to match."""

MISSED = 0.2
"""The share of queries without a match of which that may stay unsaid."""


def fit_nothing_below(with_match: ArrayLike, without: ArrayLike) -> float | None:
    """The threshold below which the best P(match) of a query says that nothing matches, from the best P(match) of
    queries `with_match` (n,), and of lists `without` one (m,). None where there are too few of either to tell.

    Both errors count as shares of what is bearable, `FALSE_ALARMS` and `MISSED`. No threshold is taken with more false
    alarms than bearable, however much it would find: a misread request looks like one without a match. Where several
    thresholds do equally well, the one in the middle, in log-odds. It may lie above one half: P(match) is that of an
    image of a query with a match, and the best of a hundred images is often one that the model misjudged.
    """
    matched, unmatched = (np.sort(np.asarray(best, dtype=np.float64)) for best in (with_match, without))
    if min(len(matched), len(unmatched)) < _FEWEST:
        return None
    known = np.unique(np.clip(np.concatenate([matched, unmatched]), _LEAST_P, 1.0 - _LEAST_P))
    odds = np.log(known) - np.log1p(-known)
    edges = np.concatenate([[odds[0] - 1.0], odds, [odds[-1] + 1.0]])
    middles = 1.0 / (1.0 + np.exp(-(edges[:-1] + edges[1:]) / 2))
    below, above = (matched < middles[:, None]).mean(axis=1), (unmatched >= middles[:, None]).mean(axis=1)
    cost = np.where(below <= FALSE_ALARMS, below / FALSE_ALARMS + above / MISSED, np.inf)
    best = np.flatnonzero(cost <= cost.min() + 1e-9)
    low, high = edges[best[0]], edges[best[-1] + 1]
    return float(1.0 / (1.0 + np.exp(-(low + high) / 2)))


def fit_spread(gaps: ArrayLike) -> float:
    """The standard deviation of errors in log-odds that explains how often a relevant image stands below another.

    `gaps` (n,) is the log-odds of a relevant image minus those of an irrelevant one of the same query. With
    independent normal errors P(gap > 0) = Phi(|gap| / (spread * sqrt 2)), Thurstone's case V (1927).
    """
    found = np.asarray(gaps, dtype=np.float64)

    def loss(log_spread: float) -> float:
        # Over a small spread the tail is so far out that only its logarithm is a number.
        return float(-log_ndtr(found / (np.exp(log_spread) * np.sqrt(2.0))).sum() + 0.5 * log_spread**2)

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(_SPREAD))).x))

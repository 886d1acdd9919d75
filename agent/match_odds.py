"""The log-odds that an image matches a query, from the answers about it.

A match satisfies every predicate, so with independent verdicts P(all hold) is the product of their probabilities. Its
log-odds, those of the answer about the whole query and the prior's standing are weighted and added: the first stage's
score is fused and not thrown away, because a weak model alone can rank below it (MM-Embed, arXiv 2411.02571). The
temperature is for all of an image's verdicts together and not for each, since their errors come together, too: a model
that misjudges an animal misjudges all that is asked about it. And with a small probability the verdicts say nothing:
a match is taken for something else, for example because the request was misread (a *miss*), or something else for a
match, for example because the request says little that separates images (a *false alarm*). So among images that all
seem not to match, and among those that all seem to, the prior has a say; how much of one is fitted like all the rest.
Each part that fails costs something besides, whatever the others say, so that of images that do not match those come
first of which more holds.

`log_odds_of_match` is what ranks and what `calibrate` fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST = 1e-12


class Weights(Protocol):
    """What weighs verdicts, in a calibration and in a fit."""

    @property
    def temperature(self) -> float: ...
    @property
    def whole_weight(self) -> float: ...
    @property
    def miss_odds(self) -> float: ...
    @property
    def false_alarm_odds(self) -> float: ...
    @property
    def part_cost(self) -> float: ...


@dataclass(frozen=True)
class Answers:
    """What the answers about n images come to, each (n,): the log-odds that all `parts` hold, 0 where a query has none;
    those of the answer about the `whole` query, 0 where it was not asked; and how many parts are `failing`, as an
    expectation."""

    parts: Floats
    whole: Floats
    failing: Floats


def log_odds_of_match(before: Floats, answers: Answers, weights: Weights, miss_odds: float | None = None) -> Floats:
    """(n,) log-odds of a match: `before` (n,) without verdicts, and what the verdicts add. `miss_odds` stand in for
    those of the weights."""
    miss_odds = weights.miss_odds if miss_odds is None else miss_odds
    verdicts = tempered(weighted(answers, weights), miss_odds, weights.false_alarm_odds)
    return np.asarray(before + verdicts - weights.part_cost * answers.failing)


def evidence(answers: Answers, weights: Weights) -> Floats:
    """(n,) log-odds that the verdicts speak for, if they always said something."""
    return np.asarray(weighted(answers, weights) - weights.part_cost * answers.failing)


def weighted(answers: Answers, weights: Weights) -> Floats:
    """(n,) log-odds that the answers speak for, without the cost of parts that fail."""
    return np.asarray(answers.parts / weights.temperature + weights.whole_weight * answers.whole)


def log_odds_of_all(holds: Floats) -> Floats:
    """(n,) log-odds that all of k independent predicates hold, from (n, k) probabilities; 0 where k is 0."""
    if holds.shape[1] == 0:
        return np.zeros(len(holds))
    return all_hold(log_of(holds).sum(axis=1))


def all_hold(log_p: Floats) -> Floats:
    """Log-odds, given log-probabilities, kept finite."""
    log_p = np.minimum(log_p, -_LEAST)
    return np.asarray(log_p - np.log(-np.expm1(log_p)))


def log_of(p: Floats) -> Floats:
    """Logarithms of probabilities, kept finite."""
    return np.asarray(np.log(np.maximum(p, _LEAST)))


def log_odds_of(p: Floats) -> Floats:
    """Log-odds of probabilities, kept finite."""
    within = np.clip(p, _LEAST, 1.0 - _LEAST)
    return np.asarray(np.log(within) - np.log1p(-within))


def tempered(evidence: Floats, miss_odds: float, false_alarm_odds: float) -> Floats:
    """(n,) log-odds after the verdicts, from the log-odds that the verdicts speak for.

    `miss_odds` are the odds that a match's verdicts look like any other image's, `false_alarm_odds` that another
    image's look like a match's. The result lies between about log(miss_odds) and -log(false_alarm_odds).
    """
    for_match = np.logaddexp(evidence, np.log(miss_odds)) - np.log1p(miss_odds) if miss_odds else evidence
    against = (
        np.logaddexp(0.0, evidence + np.log(false_alarm_odds)) - np.log1p(false_alarm_odds) if false_alarm_odds else 0.0
    )
    return np.asarray(for_match - against)

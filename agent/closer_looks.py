"""What closer looks at an image come to, beside the answers about the picture as it is.

Several looks at one image are dependent witnesses: what misleads the model in one of them often does in the next, so
their log-odds are not added up. Each witness is worth the log-odds of its own answers: those about the picture as it
is, about its regions (the best one, and the mean of all), about the region around these, about the enhanced picture,
and about enhanced regions (the best one). They are weighted by what a calibration fitted for just these looks
(`LookWeights`), and tempered like the answers about a single picture. Without a fit all witnesses count alike and are
taken to be correlated: their mean, for two of them times 1.18, and never the greatest of them, which one misleading
region would decide.

P(match) remains a function of the image's own answers and of its prior's standing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.calibration import Calibration, LookWeights
from fieldscope.agent.match_odds import (
    Answers,
    Floats,
    Weights,
    log_odds_of,
    log_odds_of_all,
    tempered,
    weighted,
)
from fieldscope.agent.types import Predicate, Verdict
from fieldscope.core.looks import Look

CORRELATION = 0.7
"""How alike the log-odds of two looks at one image are taken to be where nothing was fitted."""

WITNESSES = ("as_is", "best_region", "mean_region", "around", "enhanced", "enhanced_region")
"""The witnesses that are weighed, as `LookWeights` names them."""

IN_A_REGION = frozenset({"query", "subject", "colour", "behaviour"})
"""Kinds of predicate that a region of the picture can answer: what is asked of one subject, and the whole query."""

OF_ALL_SUBJECTS = frozenset({"count", "comparison"})
"""Kinds of predicate that a region can answer if it holds all subjects. All others (habitat, weather, context, what
must be absent, and what is of no known kind) are asked of whole pictures only."""


class LookSet(NamedTuple):
    """How many looks of each kind were taken at an image."""

    regions: int = 0
    around: int = 0
    enhanced: int = 0
    enhanced_regions: int = 0

    def with_look(self, look: Look) -> LookSet:
        """The set with one more look."""
        kind = kind_of(look)
        return self._replace(**{kind: getattr(self, kind) + 1})


def kind_of(look: Look) -> str:
    """The kind of a look, as `LookSet` names it."""
    if look.region is None:
        return "enhanced"
    if look.proposed_by == "around":
        return "around"
    return "enhanced_regions" if look.enhance else "regions"


def answerable(predicates: Iterable[Predicate], look: Look) -> tuple[Predicate, ...]:
    """The predicates that can be asked of a look, by their kinds: the region around all others holds all subjects. A
    question about the whole query stands for all others, where there is one."""
    if look.region is None:
        fitting = tuple(predicates)
    else:
        kinds = IN_A_REGION | OF_ALL_SUBJECTS if look.proposed_by == "around" else IN_A_REGION
        fitting = tuple(predicate for predicate in predicates if predicate.kind in kinds)
    whole = tuple(predicate for predicate in fitting if predicate.kind == "query")
    return whole or fitting


@dataclass(frozen=True)
class TakenLooks:
    """The answers of closer looks at one image, in the order in which they were taken: (m, k) probabilities that the
    predicates hold, NaN where a look was not asked or did not answer."""

    looks: tuple[Look, ...]
    holds: Floats


def taken_looks(verdicts: Sequence[Verdict], predicates: Sequence[Predicate]) -> dict[str, TakenLooks]:
    """The closer looks at each image that answered something. Of two answers to one question the later one counts."""
    columns = {predicate.id: k for k, predicate in enumerate(predicates)}
    said: dict[str, dict[str, tuple[Look, Floats]]] = {}
    for verdict in verdicts:
        if verdict.look is None or verdict.p_expected is None or verdict.predicate not in columns:
            continue
        of_image = said.setdefault(verdict.image_id, {})
        _, row = of_image.setdefault(verdict.look.shows, (verdict.look, np.full(len(columns), np.nan)))
        row[columns[verdict.predicate]] = verdict.p_expected
    return {
        image_id: TakenLooks(tuple(look for look, _ in rows.values()), np.stack([row for _, row in rows.values()]))
        for image_id, rows in said.items()
    }


def look_set(looks: Iterable[Look]) -> LookSet:
    """How many of each kind there are among some looks."""
    total = LookSet()
    for look in looks:
        total = total.with_look(look)
    return total


def features(as_is: float, looks: Sequence[Look], evidence: Sequence[float]) -> list[float]:
    """What each of the `WITNESSES` says, in log-odds, from those of the picture as it is and of each look; 0 where
    there is no such witness."""
    of_kind: dict[str, list[float]] = {kind: [] for kind in LookSet._fields}
    for look, log_odds in zip(looks, evidence, strict=True):
        of_kind[kind_of(look)].append(log_odds)
    regions = of_kind.pop("regions")
    mean = sum(regions) / len(regions) if regions else 0.0
    return [as_is, max(regions, default=0.0), mean, *(max(others, default=0.0) for others in of_kind.values())]


def beside_looks(holds: Floats, whole: NDArray[np.bool_]) -> Floats:
    """(n, k) what counts of the answers about n pictures as they are once looks were taken: what looks are asked, too.
    Where a question is about the whole query, that is this question, and all others are NaN."""
    return np.where(whole, holds, np.nan) if whole.any() else holds


def evidence_of_looks(holds: Floats, whole: NDArray[np.bool_], weights: Weights) -> Floats:
    """(m,) log-odds that the answers of m looks speak for, from (m, k) probabilities that the predicates hold, NaN
    where a look was not asked: that says nothing."""
    asked = ~np.isnan(holds)
    filled = np.where(asked, holds, 1.0)
    parts = np.where(asked[:, ~whole].any(axis=1), log_odds_of_all(filled[:, ~whole]), 0.0)
    of_whole = np.where(asked, log_odds_of(filled), 0.0)[:, whole].sum(axis=1)
    return weighted(Answers(parts, of_whole, np.zeros(len(holds))), weights)


def log_odds_after_looks(said: Floats, standing: Floats, weights: LookWeights) -> Floats:
    """(n,) log-odds of a match of n images at which alike looks were taken, but for what a scoring model adds and what
    failing parts cost: from what the witnesses `said` (n, 6), as `features` has them, and the priors' `standing`
    (n,). This is what ranks and what `calibrate` fits."""
    evidence = tempered(said @ np.array(weights.weights), weights.miss_odds, weights.false_alarm_odds)
    return np.asarray(weights.bias + (weights.prior_weight * standing + evidence) / weights.temperature)


def log_odds_of_looked_at(
    as_is: Floats,
    taken: Sequence[TakenLooks],
    standing: Floats,
    whole: NDArray[np.bool_],
    calibration: Calibration,
) -> Floats:
    """(n,) the same of n images with whatever looks were `taken` at each: `as_is` (n,) is the evidence of the pictures
    as they are, `whole` (k,) says which predicate is about the whole query."""
    log_odds = np.empty(len(taken))
    for row, looks in enumerate(taken):
        evidence = evidence_of_looks(looks.holds, whole, calibration).tolist()
        said = np.array([features(float(as_is[row]), looks.looks, evidence)])
        weights = weights_of(look_set(looks.looks), calibration)
        log_odds[row] = log_odds_after_looks(said, standing[row : row + 1], weights)[0]
    return log_odds


def fitted_weights(looks: LookSet, calibration: Calibration) -> LookWeights | None:
    """What was fitted for just these looks, if anything was."""
    return next((weights for weights in calibration.looks if set_of(weights) == looks), None)


def set_of(weights: LookWeights) -> LookSet:
    """The looks that these weights are for."""
    return LookSet(*(getattr(weights, kind) for kind in LookSet._fields))


def weights_of(looks: LookSet, calibration: Calibration) -> LookWeights:
    """What was fitted for just these looks; without that, all witnesses alike, as correlated as `CORRELATION` says."""
    if fitted := fitted_weights(looks, calibration):
        return fitted
    witnesses = 1 + sum(number > 0 for number in looks)
    share = 1.0 / (1.0 + (witnesses - 1) * CORRELATION)
    return LookWeights(
        **looks._asdict(),
        bias=calibration.bias,
        prior_weight=calibration.prior_weight,
        miss_odds=max(calibration.miss_odds, _LEAST_ODDS),
        false_alarm_odds=max(calibration.false_alarm_odds, _LEAST_ODDS),
        weights=(share, share * bool(looks.regions), 0.0, *(share * bool(number) for number in looks[1:])),
    )


_LEAST_ODDS = 1e-9


def together(holds: Floats, taken: Mapping[int, TakenLooks]) -> Floats:
    """(n, k) the probability that each predicate holds, where closer looks were asked about it: the mean log-odds of
    all that was answered. `holds` (n, k) is what the picture as it is says, `taken` are the looks by row."""
    merged = holds.copy()
    for row, looks in taken.items():
        asked = ~np.isnan(looks.holds).all(axis=0)
        seen = np.vstack([holds[row], looks.holds])[:, asked]
        merged[row, asked] = 1.0 / (1.0 + np.exp(-np.nanmean(log_odds_of(seen), axis=0)))
    return merged

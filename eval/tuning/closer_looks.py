"""What closer looks are worth, from a split on which every look at every image was taken.

Each set of looks (one region; two regions and the enhanced picture ...) has weights of its own. They maximise the
likelihood of the judgments under `fieldscope.agent.closer_looks.log_odds_after_looks`, which ranks. All sets are fitted
to the same images: one that has more looks shows what a run knows that took fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from fieldscope.agent.calibration import UNCALIBRATED, LookWeights
from fieldscope.agent.closer_looks import (
    WITNESSES,
    LookSet,
    beside_looks,
    evidence_of_looks,
    features,
    kind_of,
    log_odds_after_looks,
    look_set,
    set_of,
    taken_looks,
    together,
    weights_of,
)
from fieldscope.agent.match_odds import Floats, tempered
from fieldscope.agent.types import RerankResult
from fieldscope.core.looks import Look
from fieldscope.eval.tuning.fitting import VerdictFit
from fieldscope.eval.tuning.judged import Judged

FEWEST = 50
"""Images of which a set of looks must have been taken to be fitted."""

_WEIGHT = (0.0, 5.0)
_ODDS = (1e-6, 0.2)
_PRIOR_WEIGHT = (0.0, 10.0)
_BIAS = (-15.0, 15.0)
_LOG_TEMPERATURE = (-2.0, 2.0)
_QUERY_SPREAD = 5.0  # by how much the biases of queries may differ, as a standard deviation


@dataclass(frozen=True)
class LookedAt:
    """n images at which closer looks were taken, each `at` the place of its query and its own place in that.

    `before` (n,) are the log-odds of a match as the pictures are, `as_is` (n,) the evidence of that, `looks` those at
    each image and `evidence` that of each look. `standing` (n,) is the priors', `offset` (n,) what does not depend on
    looks; `seems_small` (n,) says whether the subject seems small, and `relevant` (n,) is 0 or 1.
    """

    at: tuple[tuple[int, int], ...]
    before: Floats
    as_is: Floats
    looks: tuple[tuple[Look, ...], ...]
    evidence: tuple[tuple[float, ...], ...]
    standing: Floats
    offset: Floats
    seems_small: NDArray[np.bool_]
    relevant: NDArray[np.float64]

    def said(self, looks: LookSet) -> tuple[NDArray[np.int64], Floats]:
        """The images that have these looks, and what the witnesses say of each by as many looks of each kind, those
        that were taken first."""
        rows, said = [], []
        for row, (own, evidence) in enumerate(zip(self.looks, self.evidence, strict=True)):
            left, kept = looks._asdict(), []
            for place, look in enumerate(own):
                if left[kind_of(look)]:
                    left[kind_of(look)] -= 1
                    kept.append(place)
            if not any(left.values()):
                rows.append(row)
                said.append(features(self.as_is[row], [own[i] for i in kept], [evidence[i] for i in kept]))
        return np.array(rows, dtype=np.int64), np.array(said).reshape(len(rows), -1)


def looked_at(judged: Sequence[Judged], results: Sequence[RerankResult], fit: VerdictFit) -> LookedAt:
    """The images of some queries at which closer looks were taken; `results` run along `judged`."""
    rows: list[_Row] = []
    for number, (query, result) in enumerate(zip(judged, results, strict=True)):
        taken = taken_looks(result.verdicts, result.predicates)
        whole = np.array([predicate.kind == "query" for predicate in result.predicates], dtype=np.bool_)
        holds = 1.0 / (1.0 + np.exp(-query.verdicts))
        asked = np.empty((len(holds), len(whole)))
        asked[:, ~whole], asked[:, whole] = holds, 1.0 / (1.0 + np.exp(-query.whole[:, np.newaxis]))
        as_is = evidence_of_looks(beside_looks(asked, whole), whole, fit)
        log_odds = query.log_odds(fit)
        priors = {ranked.image_id: ranked for ranked in result.ranking}
        scored = np.zeros(len(query.images)) if query.scored is None else fit.scorer_weight * query.scored
        for row, image_id in enumerate(query.images):
            own = taken.get(image_id)
            if own is None:
                continue
            ranked = priors[image_id]
            best = max((look.similarity for look in own.looks if look.similarity is not None), default=None)
            failing = 0.0
            if not whole.any():
                failing = float((1.0 - together(holds[[row]], {0: own})).sum())
            rows.append(
                _Row(
                    at=(number, row),
                    before=float(log_odds[row]),
                    as_is=float(as_is[row]),
                    looks=own.looks,
                    evidence=tuple(evidence_of_looks(own.holds, whole, fit).tolist()),
                    standing=float(query.prior[row]),
                    offset=float(scored[row] - fit.part_cost * failing),
                    seems_small=best is not None and ranked.standing is not None and best > ranked.prior,
                    relevant=query.relevant[row],
                )
            )
    return LookedAt(
        at=tuple(row.at for row in rows),
        before=np.array([row.before for row in rows]),
        as_is=np.array([row.as_is for row in rows]),
        looks=tuple(row.looks for row in rows),
        evidence=tuple(row.evidence for row in rows),
        standing=np.array([row.standing for row in rows]),
        offset=np.array([row.offset for row in rows]),
        seems_small=np.array([row.seems_small for row in rows], dtype=np.bool_),
        relevant=np.array([row.relevant for row in rows], dtype=np.float64),
    )


class _Row(NamedTuple):
    """One image of a `LookedAt`."""

    at: tuple[int, int]
    before: float
    as_is: float
    looks: tuple[Look, ...]
    evidence: tuple[float, ...]
    standing: float
    offset: float
    seems_small: bool
    relevant: int


def fit_looks(images: LookedAt, fit: VerdictFit) -> tuple[LookWeights, ...]:
    """The weights of every set of looks of which there are enough images with and without a match; given the `fit` to
    the pictures as they are."""
    most = [max((look_set(own)[kind] for own in images.looks), default=0) for kind in range(len(LookSet._fields))]
    fitted: dict[LookSet, LookWeights] = {}
    for counts in product(*(range(number + 1) for number in most)):
        looks = LookSet(*counts)
        rows, said = images.said(looks) if any(looks) else (np.empty(0, dtype=np.int64), np.empty((0, len(WITNESSES))))
        if len(rows) >= FEWEST and len(set(images.relevant[rows])) == 2:
            fitted[looks] = _fit(looks, said, images, rows, fit)
    return tuple(_with_moves(looks, weights, fitted, images) for looks, weights in fitted.items())


def log_odds_after_all_looks(
    judged: Mapping[str, Judged], images: LookedAt, fitted: Sequence[LookWeights], fit: VerdictFit
) -> dict[str, Floats]:
    """(n,) log-odds of a match of each query's images, after all looks that were taken at each."""
    names = list(judged)
    after = {name: query.log_odds(fit) for name, query in judged.items()}
    weights = {set_of(each): each for each in fitted}
    taken = [look_set(own) for own in images.looks]
    for looks in weights.keys() & set(taken):
        rows, said = images.said(looks)
        log_odds = log_odds_after_looks(said, images.standing[rows], weights[looks]) + images.offset[rows]
        for row, value in zip(rows.tolist(), log_odds.tolist(), strict=True):
            if taken[row] == looks:
                query, place = images.at[row]
                after[names[query]][place] = value
    return after


def _fit(looks: LookSet, said: Floats, images: LookedAt, rows: NDArray[np.int64], fit: VerdictFit) -> LookWeights:
    """Maximum likelihood in two steps, each penalised like by a Gaussian prior around what is used without a fit.

    What the witnesses count against each other is what ranks a query's images, so it is fitted with a bias for every
    query: queries differ in which look shows their subjects, and how likely a match is among their images. Bias and
    temperature of all are fitted after that.
    """
    usual = weights_of(looks, UNCALIBRATED.model_copy(update=_of(fit)))
    standing, offset = images.standing[rows], images.offset[rows]
    sides = 2.0 * images.relevant[rows] - 1.0
    names, query = np.unique([images.at[row][0] for row in rows.tolist()], return_inverse=True)
    present = (True, looks.regions > 0, looks.regions > 1, *(number > 0 for number in looks[1:]))
    default = np.array([usual.prior_weight, np.log(usual.miss_odds), np.log(usual.false_alarm_odds), *usual.weights])
    odds = (float(np.log(_ODDS[0])), float(np.log(_ODDS[1])))
    bounds = [_PRIOR_WEIGHT, odds, odds, *(_WEIGHT if there else (0.0, 0.0) for there in present)]
    default = np.clip(default, *np.array(bounds).T)
    k = len(default)

    def loss(values: Floats) -> tuple[float, Floats]:
        prior_weight, miss, false_alarm, *weights = values[:k].tolist()
        evidence = said @ np.array(weights)
        log_odds = values[k:][query] + prior_weight * standing + offset
        log_odds = log_odds + tempered(evidence, np.exp(miss), np.exp(false_alarm))
        wrong = -sides * expit(-sides * log_odds)  # of each image, the derivative by its log-odds
        moved = expit(evidence - miss) - expit(evidence + false_alarm)
        gradient = np.concatenate([
            [wrong @ standing],
            [wrong @ (expit(miss - evidence) - expit(miss))],
            [-wrong @ (expit(evidence + false_alarm) - expit(false_alarm))],
            said.T @ (wrong * moved),
            np.bincount(query, wrong, len(names)),
        ])  # fmt: skip
        off = np.concatenate([values[:k] - default, (values[k:] - usual.bias) / _QUERY_SPREAD**2])
        away = np.concatenate([values[:k] - default, values[k:] - usual.bias])
        return float(np.logaddexp(0.0, -sides * log_odds).sum() + 0.5 * off @ away), gradient + off

    start = np.concatenate([default, np.full(len(names), usual.bias)])
    anything = [(None, None)] * len(names)
    prior_weight, miss, false_alarm, *weights = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[*bounds, *anything], options={"maxiter": 1000}
    ).x[:k].tolist()  # fmt: skip
    ranking = LookWeights(
        **looks._asdict(),
        bias=0.0,
        prior_weight=prior_weight,
        miss_odds=float(np.exp(miss)),
        false_alarm_odds=float(np.exp(false_alarm)),
        weights=tuple(weights),
    )
    return _calibrated(ranking, log_odds_after_looks(said, standing, ranking), offset, sides, usual.bias)


def _calibrated(ranking: LookWeights, score: Floats, offset: Floats, sides: Floats, bias: float) -> LookWeights:
    """The weights with the bias and the temperature that make the judgments most likely; `score` (n,) is what they
    make of n images without."""

    def loss(values: Floats) -> float:
        log_odds = values[0] + score * np.exp(-values[1]) + offset
        return float(np.logaddexp(0.0, -sides * log_odds).sum() + 0.5 * ((values - (bias, 0.0)) ** 2).sum())

    found = minimize(loss, (bias, 0.0), method="L-BFGS-B", bounds=[_BIAS, _LOG_TEMPERATURE]).x
    return ranking.model_copy(update={"bias": float(found[0]), "temperature": float(np.exp(found[1]))})


def _of(fit: VerdictFit) -> dict[str, float]:
    names = ("bias", "prior_weight", "miss_odds", "false_alarm_odds")
    return {name: getattr(fit, name) for name in names}


def _with_moves(
    looks: LookSet, weights: LookWeights, fitted: Mapping[LookSet, LookWeights], images: LookedAt
) -> LookWeights:
    """The weights, with by how much the last look of each kind moved the log-odds of a match."""
    rows, said = images.said(looks)
    after = log_odds_after_looks(said, images.standing[rows], weights) + images.offset[rows]
    moves: dict[str, float] = {}
    small: dict[str, float] = {}
    for kind, number in looks._asdict().items():
        earlier = looks._replace(**{kind: number - 1}) if number else looks
        if not number or (any(earlier) and earlier not in fitted):
            continue
        before = images.before[rows]
        if any(earlier):
            earlier_rows, earlier_said = images.said(earlier)  # all that have a set of looks have any part of it
            there = np.isin(earlier_rows, rows)
            before = log_odds_after_looks(earlier_said[there], images.standing[rows], fitted[earlier])
            before = before + images.offset[rows]
        seems_small = images.seems_small[rows]
        moves[kind] = _spread(before[~seems_small], after[~seems_small])
        small[kind] = _spread(before[seems_small], after[seems_small])
    return weights.model_copy(update={"moves": moves, "moves_small": small})


def _spread(before: Floats, after: Floats) -> float:
    """How far log-odds moved, as a standard deviation in which images of an uncertain match count most; 0 without
    images."""
    p = 1.0 / (1.0 + np.exp(-before))
    weights = p * (1.0 - p)
    return float(np.sqrt((weights * (after - before) ** 2).sum() / weights.sum())) if weights.sum() > 0 else 0.0

"""What is believed of a query's candidates, given priors, verdicts and a calibration.

A match satisfies every predicate, so with independent verdicts P(all hold) is the product of their probabilities. Its
log-odds, those of the answer about the whole query and the standardised prior are weighted and added: the first stage's
score is fused and not thrown away, because a weak model alone can rank below it (MM-Embed, arXiv 2411.02571). The
temperature is for all of an image's verdicts together and not for each, since their errors come together, too: a model
that misjudges an animal misjudges all that is asked about it. And with a small probability the verdicts say nothing:
a match is taken for something else, for example because the request was misread (a *miss*), or something else for a
match, for example because the request says little that separates images (a *false alarm*). So among images that all
seem not to match, and among those that all seem to, the prior decides. Where none is confirmed, a misread request is
more likely.

The score of a scoring model is one more weighted part, standardised like the prior. Where a calibration measured what
prior and score say by themselves, an image about which nothing was asked has that probability of a match, and the
others share the belief above.

A question without an answer counts with the share of this query's images that pass it: that changes no order among
images that lack the same answers, and is neither a "no" nor a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.fusion import standardise
from fieldscope.agent.resources import Resources
from fieldscope.agent.scoring import standing
from fieldscope.agent.shapley import shapley
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Predicate, Verdict
from fieldscope.core.types import Candidate

Floats = NDArray[np.float64]

PASS_RATE = 0.4
"""The share of candidates that are expected to pass a predicate of a kind that no calibration knows."""

PSEUDO_ANSWERS = 4.0
"""How many answers the expected share weighs, against those that this query has got."""

UNCONFIRMED = 200.0
"""By how much the odds of a miss grow where no candidate is more likely a match than not."""

_LEAST = 1e-12


@dataclass(frozen=True)
class Belief:
    """What is known of n candidates (in prior order) and k predicates.

    `holds` (n, k) is the probability that a predicate holds. `finished` (n, k) says whether a question has its answer
    or failed, so that nothing more is asked, and `answered` whether it has one (None: all that are finished). `whole`
    (k,) says which predicate is about the whole query. `prior` (n,) is the prior's weighted part of the log-odds,
    `scorer` (n,) that of a scoring model, None where the strategy weighs none. `first_look` (n, 3) are base, prior and
    scorer as they count for an image about which nothing was asked (None: as for all others). `cut_short` says that a
    budget ended the questions.
    """

    candidates: tuple[Candidate, ...]
    predicates: tuple[Predicate, ...]
    holds: Floats
    finished: NDArray[np.bool_]
    pass_rates: Floats
    whole: NDArray[np.bool_]
    prior: Floats
    calibration: Calibration
    cut_short: bool = False
    scorer: Floats | None = None
    first_look: Floats | None = None
    answered: NDArray[np.bool_] | None = None

    @cached_property
    def log_odds(self) -> Floats:
        """(n,) log-odds of a match, before comparisons."""
        return self._seen_first(self._before + self._tempered(self.holds))

    @cached_property
    def p_match(self) -> Floats:
        """(n,) probabilities of a match, before comparisons."""
        return 1.0 / (1.0 + np.exp(-self.log_odds))

    @property
    def p_best(self) -> float | None:
        """The greatest P(match) of the images that were looked at: those with an answer, and those of which the first
        look said enough. None where there is none."""
        looked_at = self.has_answer.any(axis=1)
        if self.first_look is not None:
            looked_at = looked_at | self.unasked
        return float(self.p_match[looked_at].max()) if looked_at.any() else None

    @cached_property
    def has_answer(self) -> NDArray[np.bool_]:
        """(n, k) whether a question has an answer."""
        return self.finished if self.answered is None else self.answered

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """(n,) whether an image was looked at and no failed question leaves open whether it matches: an image is
        refuted by one answer."""
        refuted = (self.has_answer & (self.holds < 0.5)).any(axis=1)
        failed = (self.finished & ~self.has_answer).any(axis=1)
        judged = self.has_answer.any(axis=1) & (refuted | ~failed)
        return np.asarray(judged if self.first_look is None else judged | self.unasked)

    @cached_property
    def p_told(self) -> Floats:
        """(n,) probabilities of a match as the verdicts have it: what further verdicts can change."""
        return 1.0 / (1.0 + np.exp(-self._seen_first(self._before + self._evidence(self.holds))))

    def order(self) -> list[int]:
        """Candidates by falling log-odds; equal ones in prior order."""
        return [int(i) for i in np.argsort(-self.log_odds, kind="stable")]

    def contributions(self, i: int) -> dict[str, float]:
        """What the log-odds of candidate `i` are made of: base, prior, scorer, and each predicate's Shapley value. An
        answer that is not there counts as its pass rate; the odds of a miss are those of all answers."""
        ids = [predicate.id for predicate in self.predicates]
        if self.first_look is not None and self.unasked[i]:
            base, prior, scorer = self.first_look[i].tolist()
            return {"base": base, "prior": prior, "scorer": scorer, **dict.fromkeys(ids, 0.0)}
        absent, present = self._terms(self.pass_rates), self._terms(self.holds[i])

        def worth(sums: Floats) -> Floats:
            return tempered(self._evidence_of(*sums.T), self._miss_odds, self.calibration.false_alarm_odds)

        shares = shapley(absent, present, worth).tolist()
        base = self.calibration.bias + float(worth(absent.sum(axis=0, keepdims=True))[0])
        scorer = {} if self.scorer is None else {"scorer": float(self.scorer[i])}
        return {"base": base, "prior": float(self.prior[i]), **scorer, **dict(zip(ids, shares, strict=True))}

    @cached_property
    def _before(self) -> Floats:
        """(n,) log-odds of a match without the evidence of the verdicts."""
        return self.calibration.bias + self.prior + (0.0 if self.scorer is None else self.scorer)

    @cached_property
    def unasked(self) -> NDArray[np.bool_]:
        """(n,) whether no question about an image is finished."""
        return np.asarray(~self.finished.any(axis=1))

    def _seen_first(self, log_odds: Floats) -> Floats:
        """(n,) log-odds, those of the first look for images about which nothing was asked."""
        if self.first_look is None:
            return log_odds
        return np.asarray(np.where(self.unasked, self.first_look.sum(axis=1), log_odds))

    def _terms(self, holds: Floats) -> Floats:
        """(k, 2) from (k,) probabilities: what each predicate adds to the log-probability that all parts hold, and to
        the log-odds of the whole."""
        return np.stack([np.where(self.whole, 0.0, _log(holds)), np.where(self.whole, _log_odds(holds), 0.0)], axis=-1)

    def _evidence(self, holds: Floats) -> Floats:
        """(n,) log-odds from (n, k) probabilities that the predicates hold: those of all parts, and of the whole."""
        return self._evidence_of(_log(holds[:, ~self.whole]).sum(axis=1), _log_odds(holds[:, self.whole]).sum(axis=1))

    def _evidence_of(self, parts: Floats, whole: Floats) -> Floats:
        """(n,) log-odds from (n,) log-probabilities that all parts hold and (n,) log-odds of the whole."""
        of_parts = np.zeros(len(parts)) if self.whole.all() else _all_hold(parts)
        return np.asarray(of_parts / self.calibration.temperature + self.calibration.whole_weight * whole)

    @cached_property
    def _miss_odds(self) -> float:
        """The calibration's odds, and higher ones where no candidate is confirmed: then the request may have been
        misread. Where a budget ended the questions, a candidate might still be confirmed, and the odds stay."""
        miss_odds = self.calibration.miss_odds
        if self.cut_short:
            return miss_odds
        evidence = tempered(self._evidence(self.holds), miss_odds, self.calibration.false_alarm_odds)
        confirmed = (self._seen_first(self._before + evidence) > 0).any()
        return miss_odds if confirmed else miss_odds * UNCONFIRMED

    def _tempered(self, holds: Floats) -> Floats:
        return tempered(self._evidence(holds), self._miss_odds, self.calibration.false_alarm_odds)


def log_odds_of_all(holds: Floats) -> Floats:
    """(n,) log-odds that all of k independent predicates hold, from (n, k) probabilities; 0 where k is 0."""
    if holds.shape[1] == 0:
        return np.zeros(len(holds))
    return _all_hold(_log(holds).sum(axis=1))


def _all_hold(log_p: Floats) -> Floats:
    """Log-odds, given log-probabilities."""
    log_p = np.minimum(log_p, -_LEAST)
    return np.asarray(log_p - np.log(-np.expm1(log_p)))


def _log(p: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(p, _LEAST)))


def _log_odds(p: Floats) -> Floats:
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


def believe(state: RerankState, resources: Resources, strategy: Strategy) -> Belief:
    """The belief after the verdicts so far. Without a calibration the strategy's weights stand in."""
    fitted, fusion = resources.calibration, strategy.fusion
    weight = fitted.prior_weight if fitted else fusion.prior_weight or 0.0
    calibration = fitted or UNCALIBRATED
    candidates, predicates = state.candidates, state.predicates
    rows = {candidate.image_id: i for i, candidate in enumerate(candidates)}
    columns = {predicate.id: k for k, predicate in enumerate(predicates)}
    answers = np.full((len(candidates), len(predicates)), np.nan)
    finished = np.zeros(answers.shape, dtype=np.bool_)
    for verdict in latest(state.verdicts):
        if verdict.image_id not in rows or verdict.predicate not in columns or verdict.state == "not_asked":
            continue
        at = rows[verdict.image_id], columns[verdict.predicate]
        finished[at] = True
        if verdict.p_expected is not None:
            answers[at] = _counted(verdict, predicates[at[1]], calibration)
    prior = np.array(standardise([candidate.prior for candidate in candidates]), dtype=np.float64)
    scored = np.array(standing(candidates, state.scores), dtype=np.float64) if strategy.weighs_scores else None
    scorer_weight = fusion.scorer_weight if calibration.scorer_weight is None else calibration.scorer_weight
    rates = np.array([_pass_rate(answers[:, k], p, calibration) for k, p in enumerate(predicates)])
    return Belief(
        candidates=candidates,
        predicates=predicates,
        holds=np.where(np.isnan(answers), rates, answers) if predicates else answers,
        finished=finished,
        pass_rates=rates,
        whole=np.array([predicate.kind == "query" for predicate in predicates], dtype=np.bool_),
        prior=weight * prior,
        calibration=calibration,
        cut_short=state.ended is not None,
        scorer=None if scored is None else (scorer_weight or 0.0) * scored,
        first_look=None if scored is None else _first_look(calibration, prior, scored),
        answered=~np.isnan(answers),
    )


def _first_look(calibration: Calibration, prior: Floats, scored: Floats) -> Floats | None:
    """(n, 3) base, prior and scorer of images before any question; None where that was never measured."""
    look = calibration.first_look
    if look is None:
        return None
    base = np.full_like(prior, look.bias)
    return np.stack([base, look.prior_weight * prior, look.scorer_weight * scored], axis=-1)


def _counted(verdict: Verdict, predicate: Predicate, calibration: Calibration) -> float:
    """P(expected) as it counts beside single answers. Joint answers hang together, and so have weights of their own."""
    p = verdict.p_expected or 0.0
    if not verdict.joint:
        return p
    weight = calibration.joint_whole_weight if predicate.kind == "query" else 1.0 / calibration.joint_temperature
    return joint_as_single(p, weight)


def joint_as_single(p: float, weight: float) -> float:
    """The probability with `weight` times the log-odds of `p`, which lies between 0 and 1."""
    return float(1.0 / (1.0 + np.exp(-weight * _log_odds(np.array(p)))))


def latest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict per image and predicate. A question of its own outweighs a share in a joint answer, and an answer one
    that failed; else the later one counts."""
    best: dict[tuple[str, str], Verdict] = {}
    for verdict in verdicts:
        key = verdict.image_id, verdict.predicate
        if key not in best or _weight(verdict) >= _weight(best[key]):
            best[key] = verdict
    return list(best.values())


def _weight(verdict: Verdict) -> tuple[bool, bool, bool]:
    return verdict.state == "answered", verdict.state != "not_asked", not verdict.joint


def _pass_rate(answers: Floats, predicate: Predicate, calibration: Calibration) -> float:
    known = answers[~np.isnan(answers)]
    expected = calibration.pass_rates.get(predicate.kind, PASS_RATE)
    return float((PSEUDO_ANSWERS * expected + known.sum()) / (PSEUDO_ANSWERS + len(known)))


def agreement(state: RerankState, window: int | None) -> list[float]:
    """For each candidate in the window (all, where None), in prior order, how many predicates have the expected answer
    (ImageScope, arXiv 2503.10166). A question without an answer counts with the share of images that pass it."""
    columns = {predicate.id: k for k, predicate in enumerate(state.predicates)}
    rows = {candidate.image_id: i for i, candidate in enumerate(state.candidates[:window])}
    agrees = np.full((len(rows), len(columns)), np.nan)
    for verdict in latest(state.verdicts):
        if verdict.p_expected is not None and verdict.image_id in rows and verdict.predicate in columns:
            agrees[rows[verdict.image_id], columns[verdict.predicate]] = verdict.p_expected > 0.5
    answered = ~np.isnan(agrees)
    shares = np.where(answered, agrees, 0.0).sum(axis=0) / np.maximum(answered.sum(axis=0), 1)
    return [float(count) for count in np.where(answered, agrees, shares).sum(axis=1)]


def agreement_order(state: RerankState, window: int | None = None) -> list[str]:
    """Image ids by falling agreement, equal ones in prior order; those outside the window behind it."""
    counts = agreement(state, window)
    inside = sorted(range(len(counts)), key=lambda i: -counts[i])
    return [state.candidates[i].image_id for i in inside] + [c.image_id for c in state.candidates[len(counts) :]]

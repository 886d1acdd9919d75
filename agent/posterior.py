"""What is believed of a query's candidates, given priors, verdicts and a calibration.

P(match) of an image is a function of its own verdicts and of its prior's standing against a sample of the collection
(`retrieval/background.py`), and does not depend on the other candidates; `agent/match_odds.py` has the formula. Closer
looks at an image are further witnesses (`agent/closer_looks.py`). The score of a scoring model is one more weighted
part. Where a calibration measured what prior and score say by themselves, an image about which nothing was asked has
that probability of a match.

A question without an answer counts with the share of images that pass its kind of predicate: that changes no order
among images that lack the same answers, and is neither a "no" nor a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.closer_looks import (
    TakenLooks,
    beside_looks,
    evidence_of_looks,
    log_odds_of_looked_at,
    taken_looks,
    together,
)
from fieldscope.agent.earlier import UNCONFIRMED, pass_rate
from fieldscope.agent.fusion import standardise, standings
from fieldscope.agent.match_odds import (
    Answers,
    Floats,
    all_hold,
    evidence,
    log_odds_of,
    log_odds_of_match,
    log_of,
)
from fieldscope.agent.resources import Resources
from fieldscope.agent.scoring import standing
from fieldscope.agent.shapley import shapley
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Predicate, Verdict
from fieldscope.agent.verdicts import latest
from fieldscope.core.types import Candidate

PASS_RATE = 0.4
"""The share of candidates that are expected to pass a predicate of a kind that no calibration knows."""

USUAL_STANDING = 2.5
"""The standing from which a prior speaks for a match where nothing was fitted. On FieldNotes-Rerank's validation split
candidates stand at 1.5 in the mean and matches at 3.3; the log loss of the defaults is least at 2.5."""


@dataclass(frozen=True)
class Belief:
    """What is known of n candidates (in prior order) and k predicates.

    `holds` (n, k) is the probability that a predicate holds. `finished` (n, k) says whether a question has its answer
    or failed, so that nothing more is asked, and `answered` whether it has one (None: all that are finished). `whole`
    (k,) says which predicate is about the whole query. `prior` (n,) is the prior's weighted part of the log-odds,
    `scorer` (n,) that of a scoring model, None where the strategy weighs none. `first_look` (n, 3) are base, prior and
    scorer as they count for an image about which nothing was asked (None: as for all others). `cut_short` says that a
    budget ended the questions, `relative` that priors or scores were standardised over the candidates. `standing` (n,)
    is the prior's, unweighted, `looks` are the closer looks that were taken, by candidate, and `composed` says that the
    query has a reference image. `weights` (k,) are those that a person gave predicates (None: all count once): a part
    of weight w counts like w parts with that answer, and the log-odds of the whole are multiplied by it.
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
    relative: bool = False
    answered: NDArray[np.bool_] | None = None
    standing: Floats | None = None
    composed: bool = False
    looks: Mapping[int, TakenLooks] = field(default_factory=dict)
    weights: Floats | None = None

    @cached_property
    def log_odds(self) -> Floats:
        """(n,) log-odds of a match, before comparisons."""
        if not self.looks:
            return self.log_odds_as_is
        after = self.log_odds_as_is.copy()
        rows = list(self.looks)
        after[rows] = self._after_looks(rows)
        return after

    @cached_property
    def log_odds_as_is(self) -> Floats:
        """(n,) the same without closer looks."""
        after = log_odds_of_match(self._before, self._answers(self.holds), self.calibration, self._miss_odds)
        return self._seen_first(after)

    @cached_property
    def p_match(self) -> Floats:
        """(n,) probabilities of a match, before comparisons."""
        return 1.0 / (1.0 + np.exp(-self.log_odds))

    @cached_property
    def p_before(self) -> Floats:
        """(n,) probabilities of a match before any verdict: what prior and scorer say."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self._before + np.zeros(len(self.candidates))))))

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
        told = self._seen_first(self._before + evidence(self._answers(self.holds), self.calibration))
        if rows := list(self.looks):
            told[rows] = self.log_odds[rows]
        return np.asarray(1.0 / (1.0 + np.exp(-told)))

    def order(self) -> list[int]:
        """Candidates by falling log-odds; equal ones in prior order."""
        return [int(i) for i in np.argsort(-self.log_odds, kind="stable")]

    @cached_property
    def holds_together(self) -> Floats:
        """(n, k) `holds`, where closer looks were asked about a predicate with what they said of it."""
        return together(self.holds, self.looks) if self.looks else self.holds

    @cached_property
    def parts_held(self) -> Floats:
        """(n,) how many parts of the query are known to hold; one of which the question failed counts with its pass
        rate."""
        failed = self.finished & ~self.has_answer
        held = np.where(self.has_answer, self.holds_together > 0.5, np.where(failed, self.holds, 0.0))
        return np.asarray(held[:, ~self.whole].sum(axis=1))

    def contributions(self, i: int) -> dict[str, float]:
        """What the log-odds of candidate `i` are made of: base, prior, scorer, each predicate's Shapley value as the
        picture itself has it, and what closer looks changed of that. An answer that is not there counts as its pass
        rate; the odds of a miss are those of all answers."""
        looks = {"looks": float(self.log_odds[i] - self.log_odds_as_is[i])} if i in self.looks else {}
        return {**self._contributions_as_is(i), **looks}

    def _contributions_as_is(self, i: int) -> dict[str, float]:
        ids = [predicate.id for predicate in self.predicates]
        if self.first_look is not None and self.unasked[i]:
            base, prior, scorer = self.first_look[i].tolist()
            return {"base": base, "prior": prior, "scorer": scorer, **dict.fromkeys(ids, 0.0)}
        absent, present = self._terms(self.pass_rates), self._terms(self.holds[i])

        def worth(sums: Floats) -> Floats:
            answers = Answers(self._all_parts(sums[:, 0]), sums[:, 1], sums[:, 2])
            return log_odds_of_match(np.zeros(len(sums)), answers, self.calibration, self._miss_odds)

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

    @cached_property
    def past_asking(self) -> NDArray[np.bool_]:
        """(n, k) which answers about pictures as they are would change nothing: once looks were taken, where a question
        is about the whole query, those about its parts."""
        looked = np.zeros(len(self.candidates), dtype=np.bool_)
        looked[list(self.looks)] = bool(self.whole.any())
        return looked[:, np.newaxis] & ~self.whole

    def _seen_first(self, log_odds: Floats) -> Floats:
        """(n,) log-odds, those of the first look for images about which nothing was asked."""
        if self.first_look is None:
            return log_odds
        return np.asarray(np.where(self.unasked, self.first_look.sum(axis=1), log_odds))

    def _terms(self, holds: Floats) -> Floats:
        """(k, 3) from (k,) probabilities: what each predicate adds to the log-probability that all parts hold, to the
        log-odds of the whole, and to the number of parts that fail."""
        holds = self._weighed(holds)
        own = (~self.whole, self.whole, ~self.whole)
        values = (log_of(holds), log_odds_of(holds), 1.0 - holds)
        return np.stack([np.where(mine, value, 0.0) for mine, value in zip(own, values, strict=True)], axis=-1)

    def _answers(self, holds: Floats) -> Answers:
        """What (n, k) probabilities that the predicates hold come to."""
        holds = self._weighed(holds)
        parts = holds[:, ~self.whole]
        together = self._all_parts(log_of(parts).sum(axis=1))
        return Answers(together, log_odds_of(holds[:, self.whole]).sum(axis=1), (1.0 - parts).sum(axis=1))

    def _weighed(self, holds: Floats) -> Floats:
        """(..., k) probabilities as they count with the weights of the predicates."""
        if self.weights is None:
            return holds
        of_whole = 1.0 / (1.0 + np.exp(-self.weights * log_odds_of(holds)))
        return np.asarray(np.where(self.whole, of_whole, holds**self.weights))

    def _all_parts(self, log_p: Floats) -> Floats:
        """(n,) log-odds, given log-probabilities; 0 where the query has no parts."""
        return np.zeros(len(log_p)) if self.whole.all() else all_hold(log_p)

    def _after_looks(self, rows: list[int]) -> Floats:
        """(len(rows),) log-odds of a match of images at which closer looks were taken."""
        as_is = evidence_of_looks(
            beside_looks(self._weighed(self.holds[rows]), self.whole), self.whole, self.calibration
        )
        standing = np.zeros(len(rows)) if self.standing is None else self.standing[rows]
        taken = [TakenLooks(self.looks[row].looks, self._weighed(self.looks[row].holds)) for row in rows]
        log_odds = log_odds_of_looked_at(as_is, taken, standing, self.whole, self.calibration)
        scorer = 0.0 if self.scorer is None else self.scorer[rows]
        if self.whole.any():
            return np.asarray(log_odds + scorer)
        failing = (1.0 - self._weighed(self.holds_together[rows])).sum(axis=1)
        return np.asarray(log_odds + scorer - self.calibration.part_cost * failing)

    @cached_property
    def _miss_odds(self) -> float:
        """The calibration's. In the first edition they are higher where no candidate is confirmed, unless a budget
        ended the questions."""
        miss_odds = self.calibration.miss_odds
        if self.calibration.edition == 2 or self.cut_short:
            return miss_odds
        after = log_odds_of_match(self._before, self._answers(self.holds), self.calibration)
        return miss_odds if (self._seen_first(after) > 0).any() else miss_odds * UNCONFIRMED


def believe(state: RerankState, resources: Resources, strategy: Strategy) -> Belief:
    """The belief after the verdicts so far. Without a calibration the strategy's weights stand in."""
    candidates, predicates = state.candidates, state.predicates
    calibration = resources.calibration or UNCALIBRATED
    standard = _absolute(candidates, calibration)
    if resources.calibration is None:
        calibration = uncalibrated(strategy.fusion.prior_weight or 0.0, absolute=standard is not None)
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
    prior = standard or standardise([candidate.prior for candidate in candidates])
    priors = np.array(prior, dtype=np.float64)
    scored = None
    if strategy.weighs_scores:
        of_scorer = standing(candidates, state.scores, prior, calibration.scorer_values)
        scored = np.array(of_scorer, dtype=np.float64)
    scorer_weight = strategy.fusion.scorer_weight if calibration.scorer_weight is None else calibration.scorer_weight
    rates = np.array([_pass_rate(answers[:, k], p, calibration) for k, p in enumerate(predicates)])
    return Belief(
        candidates=candidates,
        predicates=predicates,
        holds=np.where(np.isnan(answers), rates, answers) if predicates else answers,
        finished=finished,
        pass_rates=rates,
        whole=np.array([predicate.kind == "query" for predicate in predicates], dtype=np.bool_),
        prior=calibration.prior_weight * priors,
        calibration=calibration,
        cut_short=state.ended is not None,
        scorer=None if scored is None else (scorer_weight or 0.0) * scored,
        first_look=None if scored is None else _first_look(calibration, priors, scored),
        relative=standard is None or (strategy.weighs_scores and calibration.scorer_values is None),
        answered=~np.isnan(answers),
        standing=priors,
        composed=state.query.reference_image is not None,
        looks={rows[i]: taken for i, taken in taken_looks(state.verdicts, predicates).items() if i in rows},
        weights=_weights(predicates),
    )


def _weights(predicates: Sequence[Predicate]) -> Floats | None:
    weights = np.array([predicate.weight for predicate in predicates], dtype=np.float64)
    return weights if (weights != 1.0).any() else None


def _absolute(candidates: Sequence[Candidate], calibration: Calibration) -> tuple[float, ...] | None:
    """The standing of each candidate's prior; None where it can be had from the candidates alone."""
    return None if calibration.edition == 1 else standings(candidates, calibration.prior_scale)


def uncalibrated(prior_weight: float, absolute: bool) -> Calibration:
    """The weights where nothing was fitted. A standing is measured from the usual one of candidates; priors that were
    standardised over the candidates (not `absolute`) need no such correction."""
    bias = -USUAL_STANDING * prior_weight if absolute else 0.0
    return UNCALIBRATED.model_copy(update={"prior_weight": prior_weight, "bias": bias})


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
    return float(1.0 / (1.0 + np.exp(-weight * log_odds_of(np.array(p)))))


def _pass_rate(answers: Floats, predicate: Predicate, calibration: Calibration) -> float:
    expected = calibration.pass_rates.get(predicate.kind, PASS_RATE)
    return pass_rate(answers, expected) if calibration.edition == 1 else expected

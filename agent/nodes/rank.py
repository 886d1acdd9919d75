"""rank: from prior, verdicts and comparisons to a strict order, and to the result with everything that led to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldscope.agent.agreement import agreement, agreement_order
from fieldscope.agent.context import Context
from fieldscope.agent.documents import unasked
from fieldscope.agent.fusion import fuse, ranked, strictly_decreasing
from fieldscope.agent.match_odds import Floats
from fieldscope.agent.nodes.lost import lost_stages
from fieldscope.agent.nothing import can_decide, none_is_confirmed, nothing_by_answers, nothing_matches
from fieldscope.agent.resources import Resources
from fieldscope.agent.scheduling import compared_head
from fieldscope.agent.scoring import query_scores
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import (
    Asked,
    NothingMatches,
    RankedCandidate,
    RerankResult,
    Verdict,
    unasked_flag,
    unknown_flag,
)
from fieldscope.agent.verdicts import latest
from fieldscope.core.documents import DocumentSource, is_document_source, modality
from fieldscope.core.types import ImageSource

DRAWS = 400
"""Rankings drawn from the posterior for the rank intervals."""

SHARE = 0.9
"""The probability that a rank lies in its interval."""

TIE = 1e-9
"""A difference of scores that only breaks ties."""

UNCERTAIN_COMPARISONS = 0.7
"""Below this share of pairs that come out alike in both orders, a result warns of its model's comparisons."""


UNCALIBRATED_SCORER = (
    "uncalibrated: scorer and first stage count with the strategy's default weights; fit them with `fieldscope "
    "calibrate` and the same --scorer"
)
"""The warning of a result whose scoring model has no fitted weight."""


def rank(state: RerankState, context: Context) -> dict[str, Any]:
    """The result. Questions that were never sent, e.g. about images outside the window, appear as not asked, with the
    reason where there is no prompt for them."""
    resources, strategy = context.resources, context.strategy
    window = state.widened or (strategy.verify.top_k if strategy.verify else None)
    in_window = [candidate.image_id for candidate in state.candidates[:window]]
    left_out = unasked(resources.images, state.query.modality, in_window, strategy.verify)
    verdicts = (*state.verdicts, *_not_asked(state, left_out))
    by_posterior = strategy.fusion.method == "posterior"
    outcome = (_by_posterior if by_posterior else _without_belief)(state, resources, strategy)
    result = RerankResult(
        query_id=state.query.id,
        query_text=state.query.text,
        reference_image=state.query.reference_image,
        dialogue=state.query.dialogue,
        strategy=strategy.name,
        ranking=_with_documents(outcome.ranking, resources.images),
        synthesis=state.synthesis,
        predicates=state.predicates,
        verdicts=verdicts,
        comparisons=state.comparisons,
        calls=state.calls,
        scores=state.scores,
        ended=_ended(state),
        relative=outcome.relative,
        nothing=outcome.nothing,
    )
    asked = result.asked
    unknown = unknown_flag(asked)
    flags = (
        *resources.flags,
        *_consistency_flags(state, resources),
        *_weight_flags(strategy, resources),
        *lost_stages(state),
        *map(unasked_flag, sorted(set(left_out.values()))),
        *([unknown] if unknown else []),
    )
    counts = Counter(question.state for question in (*asked, *(v for v in verdicts if v.state == "not_asked")))
    said = {name: counts[name] for name in ("answered", "unknown", "not_asked")} | {"ended": result.ended}
    event = state.event("ranked", said | ({"nothing": outcome.nothing is not None} if outcome.decided else {}))
    flagged = result.model_copy(update={"trace": (*state.trace, event), "flags": flags})
    return {"result": flagged, "trace": (event,)}


def _with_documents(ranking: tuple[RankedCandidate, ...], images: ImageSource) -> tuple[RankedCandidate, ...]:
    """The ranking with what each document is made of, where documents are more than pictures."""
    if not is_document_source(images):
        return ranking
    return tuple(_with_document(candidate, images) for candidate in ranking)


def _with_document(candidate: RankedCandidate, documents: DocumentSource) -> RankedCandidate:
    text = documents.text_of(candidate.image_id)
    kind = modality(documents.has_image(candidate.image_id), bool(text))
    return candidate if kind == "image" else candidate.model_copy(update={"modality": kind, "text": text})


@dataclass(frozen=True)
class _Outcome:
    """A ranking. `relative` says whether P(match) was standardised over these candidates, `decided` whether it was
    decided if anything matches, and `nothing` what says that nothing does."""

    ranking: tuple[RankedCandidate, ...]
    relative: bool
    decided: bool
    nothing: NothingMatches | None


def _without_belief(state: RerankState, resources: Resources, strategy: Strategy) -> _Outcome:
    """By answers or scores as they are. A strategy that claims no probability of a match decides nothing."""
    ranking = _RANKINGS.get(strategy.fusion.method, _by_one_question)(state, resources, strategy)
    claims = any(candidate.p_match is not None for candidate in ranking)
    cut_short = state.ended is not None
    return _Outcome(
        ranking,
        relative=claims and strategy.fusion.method == "log_odds" and bool(strategy.fusion.prior_weight),
        decided=claims and not cut_short,
        nothing=nothing_by_answers(ranking, cut_short),
    )


def _by_one_question(state: RerankState, resources: Resources, strategy: Strategy) -> tuple[RankedCandidate, ...]:
    answered = {v.image_id: v.p_expected for v in latest(state.verdicts) if v.p_expected is not None}
    return fuse(state.candidates, answered, strategy.fusion)


def _by_score(state: RerankState, resources: Resources, strategy: Strategy) -> tuple[RankedCandidate, ...]:
    return fuse(state.candidates, query_scores(state.scores), strategy.fusion)


def _by_agreement(state: RerankState, resources: Resources, strategy: Strategy) -> tuple[RankedCandidate, ...]:
    """ImageScope (arXiv 2503.10166): counts on the window, then whatever the walk confirmed goes to the top."""
    window = strategy.verify.top_k if strategy.verify else None
    order = agreement_order(state, window)
    counts: dict[str, float | None] = dict.fromkeys(order)
    counts |= dict(zip((c.image_id for c in state.candidates), agreement(state, window), strict=False))
    confirmed = [c.shown[0] for c in state.comparisons if len(c.shown) == 1 and c.probabilities[:1] > (0.5,)]
    order = [*confirmed, *(image_id for image_id in order if image_id not in confirmed)]
    for image_id in confirmed:
        counts[image_id] = len(state.predicates) + 1.0
    return ranked(state.candidates, order, strictly_decreasing([counts[image_id] for image_id in order]))


def _by_posterior(state: RerankState, resources: Resources, strategy: Strategy) -> _Outcome:
    """By falling log-odds: those after the verdicts, and for the head those after the comparisons. Where none is
    confirmed, by how many parts hold, then by prior; beside a reference image by prior alone, since a reference that
    was described wrongly has its true matches refuted, and the first stage saw the image itself."""
    belief, head, compared = compared_head(state, resources, strategy)
    mean = belief.log_odds.copy()
    nothing = nothing_matches(belief)
    unconfirmed = none_is_confirmed(belief) and belief.calibration.edition == 2
    if unconfirmed or compared is None:
        head, covariance = [], np.empty((0, 0))
    else:
        mean[head], covariance = compared.mean, compared.covariance
    held = np.zeros_like(mean) if belief.composed else belief.parts_held  # candidates are in the order of their prior
    order = [int(i) for i in np.argsort(-(held if unconfirmed else mean), kind="stable")]
    low, high = _intervals(mean, belief.calibration.spread, head, covariance, order)
    scores = strictly_decreasing([float(mean[i]) for i in order])
    known = [
        {
            "p_match": float(belief.p_match[i]),
            "rank_low": int(low[i]),
            "rank_high": int(high[i]),
            "contributions": belief.contributions(i)
            | _unless_zero("comparisons", float(mean[i] - belief.log_odds[i]))
            | _unless_zero("first_stage" if belief.composed else "parts", score - float(mean[i])),
        }
        for score, i in zip(scores, order, strict=True)
    ]
    ranking = ranked(state.candidates, [belief.candidates[i].image_id for i in order], scores, known)
    return _Outcome(ranking, bool(ranking) and belief.relative, can_decide(belief), nothing)


def _unless_zero(name: str, value: float) -> dict[str, float]:
    """A contribution; none where it is only the step that breaks a tie."""
    return {name: value} if abs(value) > TIE else {}


_RANKINGS = {"score": _by_score, "agreement": _by_agreement}


def _intervals(
    mean: Floats, spread: float, head: Sequence[int], covariance: Floats, order: Sequence[int]
) -> tuple[Floats, Floats]:
    """(n,) lowest and highest rank of each candidate, with the probability `SHARE`, by drawing; the same every time.
    The log-odds of the `head` have a `covariance`; those of all others vary by `spread`, each by itself."""
    n = len(mean)
    if n == 0:
        return mean, mean
    noise = np.random.default_rng(0).standard_normal((DRAWS, n))
    rows, within = np.unique(np.asarray(head, dtype=np.intp), return_index=True)
    together = noise[:, rows] @ np.linalg.cholesky(covariance[np.ix_(within, within)] + 1e-9 * np.eye(len(rows))).T
    draws = mean + noise * np.sqrt(spread**2 + 1e-9)
    draws[:, rows] = mean[rows] + together
    ranks = (-draws).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1
    here = np.empty(n)
    here[list(order)] = np.arange(1, n + 1)
    low, high = np.quantile(ranks, [(1 - SHARE) / 2, (1 + SHARE) / 2], axis=0, method="nearest")
    return np.minimum(low, here), np.maximum(high, here)


def _ended(state: RerankState) -> str | None:
    """The first stage that the budget cut short."""
    if call := next((call for call in state.calls if call.state == "not_asked"), None):
        before = call.stage in ("caption", "synthesize") or state.ended != "score"
        return call.stage if before else "score"
    verified: list[Asked] = [*state.verdicts, *(draw for verdict in state.verdicts for draw in verdict.draws)]
    stages: tuple[tuple[str, Sequence[Asked]], ...] = (("verify", verified), ("compare", state.comparisons))
    return state.ended or next((stage for stage, asked in stages if any(a.state == "not_asked" for a in asked)), None)


def _consistency_flags(state: RerankState, resources: Resources) -> list[str]:
    consistency = resources.calibration.consistency if resources.calibration else None
    if not state.comparisons or consistency is None or consistency >= UNCERTAIN_COMPARISONS:
        return []
    return [f"this model's comparisons agree in both orders for {consistency:.0%} of pairs only; they weigh little"]


def _weight_flags(strategy: Strategy, resources: Resources) -> list[str]:
    """What is to be known of the weights of prior and scorer where nothing was fitted for them."""
    if not strategy.weighs_scores or (resources.calibration is not None and resources.calibration.key is not None):
        return []
    return [UNCALIBRATED_SCORER]


def _not_asked(state: RerankState, left_out: Mapping[str, str]) -> list[Verdict]:
    judged = {(verdict.image_id, verdict.predicate) for verdict in state.verdicts if verdict.look is None}
    return [
        Verdict(
            predicate=predicate.id,
            image_id=candidate.image_id,
            state="not_asked",
            error=left_out.get(candidate.image_id),
        )
        for candidate in state.candidates
        for predicate in state.predicates
        if (candidate.image_id, predicate.id) not in judged
    ]

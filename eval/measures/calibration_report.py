"""What a run claims with a probability, before and after its calibration, and how reliable that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from fieldscope.agent.calibration import UNCALIBRATED, Calibration
from fieldscope.agent.fusion import sigmoid
from fieldscope.agent.posterior import believe, uncalibrated
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import ORDER_ONLY, RankedCandidate, RerankResult
from fieldscope.core.types import Query
from fieldscope.eval.measures.reliability import Reliability, claims, reliability, tempered
from fieldscope.eval.measures.truth import RELEVANCE, AnswerKey
from fieldscope.retrieval.collection import FilesCollection

VERDICTS = "all verdicts"
MATCH = "match"
RANKED = "match as ranked"

ByQuery = dict[str, list[tuple[float, bool]]]
"""Query id -> (probability, whether it held)."""


@dataclass(frozen=True)
class ClaimReliability:
    """How reliable one kind of claim is. `subject` is a kind of predicate, all verdicts together, or the match: that
    the image is relevant, before comparisons, and `RANKED` with them, in runs of earlier versions, whose P(match) they
    changed. `source` is what it was held against. `after` is None where the run had no calibration, or it is not at
    hand."""

    subject: str
    source: str
    before: Reliability
    after: Reliability | None


def claim_reliability(
    results: Mapping[str, RerankResult], key: AnswerKey, calibrated: bool, calibration: Calibration | None = None
) -> list[ClaimReliability]:
    """The reliability of P(expected) by kind of predicate and of P(match); empty where nothing is claimed of which the
    truth is known.

    Of verdicts, before is P(expected) as it was read, and after with the log-odds divided by the temperature, or for
    the whole query multiplied by its weight. Of the match, before is the posterior from the same answers under the
    defaults, and after the one under the calibration. Kinds of which the truth is known for relevant images only are
    left out: where all claims hold, none can be too high. `calibrated` says whether the run had a calibration, and
    `calibration` is that one, where it is at hand.
    """
    kinds: dict[str, ByQuery] = defaultdict(lambda: defaultdict(list))
    for result in results.values():
        predicates = {predicate.id: predicate for predicate in result.predicates}
        for image_id, verdicts in verdicts_by_image(result).items():
            for name, verdict in verdicts.items():
                predicate = predicates[name]
                if verdict.p_expected is None or key.one_sided(predicate.kind):
                    continue
                holds = key.holds(result.query_id, predicate, image_id)
                if holds is not None:
                    kinds[predicate.kind][result.query_id].append((verdict.p_expected, holds))
    return [*_of_verdicts(kinds, key, calibration), *_of_matches(results, key, calibrated)]


def _of_verdicts(
    kinds: Mapping[str, ByQuery], key: AnswerKey, calibration: Calibration | None
) -> list[ClaimReliability]:
    reliabilities = []
    together: tuple[ByQuery, ByQuery] = defaultdict(list), defaultdict(list)
    for kind in sorted(kinds, key=lambda kind: (kind == "query", kind)):
        before = kinds[kind]
        after = _tempered(before, _weight(kind, calibration)) if calibration else None
        reliabilities.append(_measured(kind, key.source(kind), before, after))
        for all_of_them, claims_of in zip(together, (before, after or {}), strict=True):
            for query_id, rows in claims_of.items():
                all_of_them[query_id] += rows
    if len(reliabilities) > 1:
        sources = sorted({of_kind.source for of_kind in reliabilities})
        reliabilities.append(
            _measured(VERDICTS, " and ".join(sources), together[0], together[1] if calibration else None)
        )
    return reliabilities


def _weight(kind: str, calibration: Calibration) -> float:
    return calibration.whole_weight if kind == "query" else 1.0 / calibration.temperature


def _tempered(claims_of: ByQuery, weight: float) -> ByQuery:
    return {
        query_id: list(zip(tempered([p for p, _ in rows], weight).tolist(), (held for _, held in rows), strict=True))
        for query_id, rows in claims_of.items()
    }


def _of_matches(results: Mapping[str, RerankResult], key: AnswerKey, calibrated: bool) -> list[ClaimReliability]:
    before: ByQuery = {}
    after: ByQuery = {}
    ranked: ByQuery = {}
    for result in results.values():
        relevant = key.relevant(result.query_id)
        claimed = {shown.image_id: shown.p_match for shown in result.ranking if shown.p_match is not None}
        verified = {shown.image_id: _before_comparisons(shown) for shown in result.ranking if shown.contributions}
        plain = _default_posterior(result) if calibrated else verified or claimed
        for claims_of, p_match in ((before, plain), (after, verified), (ranked, claimed)):
            if p_match:
                claims_of[result.query_id] = [(p, image_id in relevant) for image_id, p in p_match.items()]
    reliabilities = [_measured(MATCH, RELEVANCE, before, after if calibrated else None)] if before else []
    if any(_counts_comparisons(shown) for result in results.values() for shown in result.ranking):
        reliabilities.append(_measured(RANKED, RELEVANCE, *((before, ranked) if calibrated else (ranked, None))))
    return reliabilities


def _before_comparisons(shown: RankedCandidate) -> float:
    shares = shown.contributions
    return sigmoid(sum(shares.values()) - sum(shares.get(name, 0.0) for name in ORDER_ONLY))


def _counts_comparisons(shown: RankedCandidate) -> bool:
    """Whether P(match) is the one after comparisons, as in runs of earlier versions."""
    if shown.p_match is None or "comparisons" not in shown.contributions:
        return False
    return abs(shown.p_match - _before_comparisons(shown)) > 1e-6


def _default_posterior(result: RerankResult) -> dict[str, float]:
    """P(match) of every image from priors and verdicts, under the default calibration."""
    by_prior = sorted(result.ranking, key=lambda candidate: candidate.prior_rank)
    state = RerankState(
        query=Query(id=result.query_id, text=result.query_text, reference_image=result.reference_image),
        candidates=tuple(ranked.candidate for ranked in by_prior),
        predicates=result.predicates,
        verdicts=result.verdicts,
    )
    # Fitted weights come before any strategy's.
    weights = uncalibrated(UNCALIBRATED.prior_weight, absolute=all(c.standing is not None for c in state.candidates))
    resources = Resources(FilesCollection({}), calibration=weights)
    belief = believe(state, resources, Strategy(name="defaults", fusion=Fusion(method="prior")))
    return {candidate.image_id: float(p) for candidate, p in zip(by_prior, belief.p_match, strict=True)}


def _measured(subject: str, source: str, before: ByQuery, after: ByQuery | None) -> ClaimReliability:
    return ClaimReliability(subject, source, reliability(claims(before)), reliability(claims(after)) if after else None)

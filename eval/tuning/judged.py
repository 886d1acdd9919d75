"""The images of a validation split that a calibration is fitted to: their answers, priors, scores and judgments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fieldscope.agent.fusion import log_odds, standings
from fieldscope.agent.scoring import query_scores, standing
from fieldscope.agent.types import RerankResult
from fieldscope.agent.verdicts import latest
from fieldscope.core.types import Scale
from fieldscope.eval.tuning.fitting import Floats, VerdictFit
from fieldscope.eval.types import Benchmark


@dataclass(frozen=True)
class Scales:
    """What standardises priors, and the scores of a scoring model; None where there is nothing to standardise."""

    prior: Scale | None
    scorer: Scale | None


def find_scales(results: Mapping[str, RerankResult], weighs_scores: bool) -> Scales:
    """The scale on which priors have the standings that they came with, or if they came without, that of all priors;
    and that of all scores."""
    ranked = [candidate for result in results.values() for candidate in result.ranking]
    priors = [candidate.prior for candidate in ranked]
    known = [candidate.standing for candidate in ranked if candidate.standing is not None]
    scores = [value for result in results.values() for value in query_scores(result.scores).values()]
    prior = scale_of(priors)
    if prior is not None and len(known) == len(ranked) and np.ptp(known) > 0:
        deviation, mean = np.polyfit(known, priors, 1)
        prior = Scale(mean=float(mean), deviation=float(deviation)) if deviation > 0 else prior
    return Scales(prior, scale_of(scores) if weighs_scores else None)


def scale_of(values: Sequence[float]) -> Scale | None:
    """Mean and deviation of some values; None where all are alike."""
    deviation = float(np.std(values)) if values else 0.0
    return Scale(mean=float(np.mean(values)), deviation=deviation) if deviation > 0 else None


@dataclass(frozen=True)
class Judged:
    """The candidates of one query all of whose questions were answered: ids, and along them the prior's standing (n,),
    the log-odds of the expected answers (n, k), those of the answer about the whole query (n,), 0 where it was
    not asked, the judgments, and the standardised scores of a scoring model (n,), None where there was none."""

    images: tuple[str, ...]
    prior: Floats
    verdicts: Floats
    whole: Floats
    relevant: tuple[int, ...]
    scored: Floats | None = None

    def log_odds(self, fit: VerdictFit) -> Floats:
        """(n,) log-odds of a match after a fit."""
        return fit.log_odds(self.prior, self.verdicts, self.whole, self.scored)

    def average_precision(self, fit: VerdictFit) -> float:
        """AP of the ranking after a fit, over all of its images; NaN without a relevant one."""
        hits = np.flatnonzero(np.array(self.relevant)[np.argsort(-self.log_odds(fit), kind="stable")])
        return float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1))) if len(hits) else np.nan


@dataclass(frozen=True)
class JudgedCandidates:
    """n candidates with an answer about the whole query: ids, priors' standings (n,), log-odds of the answers (n,), and
    judgments. `scale` is that of the priors."""

    images: tuple[str, ...]
    prior: Floats
    whole: Floats
    relevant: tuple[int, ...]
    scale: Scale | None


def judged_candidates(
    results: Mapping[str, RerankResult], judgments: Mapping[str, Mapping[str, int]], scale: Scale | None = None
) -> JudgedCandidates:
    """What a strategy that asks about the whole query is fitted to. A fitted `scale` standardises priors that came
    without a standing."""
    scales = Scales(scale, None) if scale else find_scales(results, weighs_scores=False)
    judged = [_judged(result, judgments[query_id], scales, joint=False) for query_id, result in results.items()]
    prior, _, whole, relevant, _ = stacked(judged)
    images = tuple(image_id for query in judged for image_id in query.images)
    return JudgedCandidates(images, prior, whole, tuple(relevant), scales.prior)


def all_judged(
    benchmark: Benchmark, results: Mapping[str, RerankResult], scales: Scales, *, joint: bool = False
) -> dict[str, Judged]:
    """What each query's answers say, by query; with `joint` the joint answers alone."""
    return {
        query_id: _judged(result, benchmark.judgments(query_id), scales, joint) for query_id, result in results.items()
    }


def _judged(result: RerankResult, judgments: Mapping[str, int], scales: Scales, joint: bool) -> Judged:
    answers: dict[str, dict[str, float]] = defaultdict(dict)
    for verdict in latest([verdict for verdict in result.verdicts if verdict.joint or not joint]):
        if verdict.p_expected is not None:
            answers[verdict.image_id][verdict.predicate] = log_odds(verdict.p_expected)
    candidates = sorted(result.ranking, key=lambda candidate: candidate.prior_rank)
    before = [candidate.candidate for candidate in candidates]
    priors = standings(before, scales.prior) or (0.0,) * len(before)
    names = [predicate.id for predicate in result.predicates]
    parts = [predicate.id for predicate in result.predicates if predicate.kind != "query"]
    whole = [name for name in names if name not in parts]
    scores = standing(before, result.scores, priors, scales.scorer)
    kept = [
        (candidate.image_id, prior, score)
        for candidate, prior, score in zip(candidates, priors, scores, strict=True)
        if answers[candidate.image_id].keys() >= set(names)
    ]
    images = tuple(image_id for image_id, *_ in kept)
    return Judged(
        images=images,
        prior=np.array([prior for _, prior, _ in kept]),
        verdicts=np.array([[answers[i][name] for name in parts] for i in images]).reshape(len(images), len(parts)),
        whole=np.array([sum(answers[i][name] for name in whole) for i in images]),
        relevant=tuple(judgments.get(image_id, 0) for image_id in images),
        scored=np.array([score for *_, score in kept]) if scales.scorer is not None else None,
    )


def stacked(judged: Sequence[Judged]) -> tuple[Floats, Floats, Floats, list[int], Floats | None]:
    """Prior, verdicts, whole, judgments and scores of all candidates of all queries."""
    relevant = [label for query in judged for label in query.relevant]
    widest = max(query.verdicts.shape[1] for query in judged)
    padded = [
        np.pad(query.verdicts, ((0, 0), (0, widest - query.verdicts.shape[1])), constant_values=np.inf)
        for query in judged
    ]
    prior, whole = (np.concatenate(each) for each in zip(*((q.prior, q.whole) for q in judged), strict=True))
    scores = [query.scored for query in judged if query.scored is not None]
    return prior, np.concatenate(padded), whole, relevant, np.concatenate(scores) if scores else None

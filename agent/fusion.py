"""From priors and P(yes) to one strict order.

The rule for what could not be judged: an image without an answer keeps the rank that the prior gave it, and the
answered images share out the ranks that are left, best score first. So a failed call moves its image neither up nor
down, whatever scale or bias a model's probabilities have; where nothing was answered the prior's order stands; and
images outside the window that is verified stay behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.types import RankedCandidate
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Candidate, Scale

_RANKING = TypeAdapter(tuple[RankedCandidate, ...])


def prior_order(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Best prior first. Equal priors go by image id and not by place: a benchmark's rows may be sorted by the answers.

    Raises `ConfigError` for an image that is listed twice and for a prior that is not finite.
    """
    order = sorted(candidates, key=lambda c: (-c.prior, c.image_id))
    seen: set[str] = set()
    for candidate in order:
        if candidate.image_id in seen:
            raise ConfigError(f"candidate {candidate.image_id!r} is listed twice; list each image once")
        if not math.isfinite(candidate.prior):
            raise ConfigError(f"candidate {candidate.image_id!r} has the prior {candidate.prior}; give a finite number")
        seen.add(candidate.image_id)
    return tuple(order)


def standardise(values: Sequence[float]) -> tuple[float, ...]:
    """Mean 0 and standard deviation 1 (all 0 where the values do not differ). Keeps their order."""
    scaled = np.asarray(values, dtype=np.float64)
    scaled = scaled / max(float(np.abs(scaled).max(initial=0.0)), np.finfo(np.float64).tiny)
    spread = float(scaled.std()) if scaled.size else 0.0
    if spread < np.finfo(np.float64).eps:
        return (0.0,) * len(values)
    return tuple(((scaled - scaled.mean()) / spread).tolist())


def standings(candidates: Sequence[Candidate], scale: Scale | None) -> tuple[float, ...] | None:
    """How far the prior of each candidate stands above what is usual: against the collection's background, or where
    some have none against a fitted `scale`. Where all priors are 0 there was no first stage, and all stand at 0. None
    where nothing is known but the candidates themselves."""
    known = [candidate.standing for candidate in candidates if candidate.standing is not None]
    if len(known) == len(candidates):
        return tuple(known)
    if not any(candidate.prior for candidate in candidates):
        return (0.0,) * len(candidates)
    return None if scale is None else tuple(scale.standing(candidate.prior) for candidate in candidates)


def log_odds(p: float) -> float:
    """The natural logarithm of p / (1 - p), for 0 < p < 1."""
    return math.log(p) - math.log1p(-p)


def sigmoid(x: float) -> float:
    """The probability whose log-odds are `x`."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def fuse(candidates: Sequence[Candidate], p_match: Mapping[str, float], fusion: Fusion) -> tuple[RankedCandidate, ...]:
    """The ranking of `candidates` (in prior order), given P(yes) for those images that have an answer, or with the
    method `score` the scorer's score of those that have one.

    Equal scores go by prior rank. Scores come out strictly decreasing: ties are broken by the smallest steps that
    floats have, and an image without an answer is put just below the one above it. `p_match` of a ranked candidate
    is P(yes), or with `log_odds` the sigmoid of its score, and None without an answer and with `score`.
    """
    scores = _scores(candidates, p_match, fusion)
    given = [candidate.image_id for candidate in candidates]
    by_score = iter(sorted((i for i in given if i in scores), key=lambda i: -scores[i]))
    order = [next(by_score) if i in scores else i for i in given]
    strict = strictly_decreasing([scores.get(i) for i in order])
    known = [{"p_match": _p_match(i, scores, p_match, fusion)} for i in order]
    return ranked(candidates, order, strict, known)


def ranked(
    candidates: Sequence[Candidate],
    order: Sequence[str],
    scores: Sequence[float],
    known: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[RankedCandidate, ...]:
    """The ranking of the `candidates` (in prior order) in an `order` of their ids, with the score of each along it and
    whatever else is `known` of it, by the fields of `RankedCandidate`."""
    before = {c.image_id: (n, c) for n, c in enumerate(candidates, start=1)}
    rows, known = [], [{}] * len(order) if known is None else known
    for rank, (image_id, score, more) in enumerate(zip(order, scores, known, strict=True), start=1):
        prior_rank, c = before[image_id]
        row = {"image_id": image_id, "rank": rank, "score": score, "prior": c.prior, "standing": c.standing}
        rows.append(row | {"prior_rank": prior_rank, **more})
    return _RANKING.validate_python(rows)


def strictly_decreasing(scores: Sequence[float | None]) -> list[float]:
    """Falling scores, with gaps filled and ties broken, changed by as little as floats allow."""
    top = next((s for s in scores if s is not None), 0.0)
    strict: list[float] = []
    for score in scores:
        if not strict:
            strict.append(top)
        elif score is None or score >= strict[-1]:
            strict.append(math.nextafter(strict[-1], -math.inf))
        else:
            strict.append(score)
    return strict


def _scores(candidates: Sequence[Candidate], p_match: Mapping[str, float], fusion: Fusion) -> dict[str, float]:
    """The score of every image that has one: all by their prior, or those that have an answer."""
    if fusion.method == "prior" or not p_match:
        return {c.image_id: c.prior for c in candidates}
    if fusion.method in ("p_yes", "score"):
        return dict(p_match)
    weight = fusion.prior_weight or 0.0
    prior = dict(zip((c.image_id for c in candidates), standardise([c.prior for c in candidates]), strict=True))
    error = fusion.error_rate or 0.0
    counted = {image_id: error + (1.0 - 2.0 * error) * p for image_id, p in p_match.items()}
    return {image_id: log_odds(p) + weight * prior[image_id] for image_id, p in counted.items()}


def _p_match(image_id: str, scores: Mapping[str, float], p_match: Mapping[str, float], fusion: Fusion) -> float | None:
    if image_id not in p_match or fusion.method == "score":
        return None
    return sigmoid(scores[image_id]) if fusion.method == "log_odds" else p_match[image_id]

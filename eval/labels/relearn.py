"""A ranking refitted to a person's marks on its images, without another question to a model.

A logistic regression whose prior is the fit that made the ranking: it starts from each image's log-odds of a match as
they are, and a few marks move it only as far as they say something. It may change

- the base, and the weights of the first stage's score and of each predicate's recorded log-odds;
- how much likeness to the accepted images counts for an image, and likeness to the rejected ones against it: the mean
  cosine of image vectors, from which the mean vector of the list was taken (relevance feedback, Rocchio 1971). The
  prior of these two weights is not 0: what a person accepts says more than that it fits the query.

The posterior's mode is found by Newton's method, in milliseconds. A mark's own likeness to itself is left out. The
constants were chosen on FieldNotes-Wild's validation split (`python -m checks.marks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.match_odds import Floats, log_odds_of
from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import ORDER_ONLY, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.marks import Mark, judgments_of

TEMPERATURE = 2.0
"""What divides the log-odds of the ranking: among the images that a person sees first they are too sure."""

LIKE_ACCEPTED, LIKE_REJECTED = 4.0, -2.0
"""The prior means of the weights of likeness, in log-odds for a cosine of 1."""

_DEVIATIONS = {"base": 1.0, "prior": 0.5, "predicate": 0.5, "likeness": 2.0}
"""How far marks may move a weight, as standard deviations of its prior."""

_CERTAIN = 1e-6
_PREDICATE_SCALE = 4.0
_STEPS = 50
_LONGEST_STEP = 5.0
_WORTH_SAYING = 0.1  # log-odds for a usual difference between two images
_NAMED = 3


@dataclass(frozen=True)
class Weight:
    """By how much marks changed a weight: of the `base`, the `prior`, a predicate by its id, or likeness to the
    `accepted` or `rejected` images. `by` is in log-odds for a difference of one standard deviation between the list's
    images; for likeness it is the whole weight."""

    source: str
    by: float


@dataclass(frozen=True)
class Relearned:
    """The images that nobody accepted or rejected, best first, with their new log-odds of a match along `order`.

    `weights` are what changed, `changes` the same in sentences. `moved` maps an image to how many ranks among these
    images it rose (negative: fell).
    """

    order: tuple[str, ...]
    log_odds: Floats
    weights: tuple[Weight, ...]
    changes: tuple[str, ...]
    moved: Mapping[str, int]

    @property
    def p_match(self) -> dict[str, float]:
        """Image id -> P(match) after the marks."""
        values = 1.0 / (1.0 + np.exp(-self.log_odds))
        return dict(zip(self.order, values.tolist(), strict=True))


def relearn(result: RerankResult, marks: Mapping[str, Mark], vectors: NDArray[np.float32] | None) -> Relearned:
    """Refit a ranking to marks on its images. `vectors` (n, dim) are those of its images, in the order of the ranking;
    None where there are none, and likeness then counts for nothing.

    Raises `ConfigError` without an accepted or rejected image of the ranking.
    """
    ids = [ranked.image_id for ranked in result.ranking]
    judged = {image_id: y for image_id, y in judgments_of(marks).items() if image_id in set(ids)}
    if not judged:
        raise ConfigError("no image of this ranking is accepted or rejected yet; mark some first")
    labels = np.array([judged.get(image_id, -1) for image_id in ids])
    marked = np.flatnonzero(labels >= 0)
    features, names, means, deviations = _features(result, labels, vectors)
    before = _log_odds(result) / TEMPERATURE
    weights = _fitted(before[marked], features[marked], labels[marked].astype(np.float64), means, deviations)
    log_odds = before + features @ weights
    rest = np.flatnonzero(labels < 0)
    order = rest[np.argsort(-log_odds[rest], kind="stable")]
    place_before = {int(image): place for place, image in enumerate(rest)}
    moved = {ids[image]: place_before[int(image)] - place for place, image in enumerate(order)}
    changed = tuple(
        Weight(name, float(weight if name in ("accepted", "rejected") else weight * scale))
        for name, weight, scale in zip(names, weights, features.std(axis=0), strict=True)
        if name != "base"
    )
    kept = tuple(weight for weight in changed if weight.by)
    sentences = _sentences(result, kept, moved, labels, vectors is not None)
    return Relearned(tuple(ids[i] for i in order), log_odds[order], kept, tuple(sentences), moved)


def _log_odds(result: RerankResult) -> Floats:
    """(n,) log-odds of a match as the ranking has them; of a ranking without P(match), its standardised scores."""
    if any(ranked.p_match is None for ranked in result.ranking):
        return _standardised(np.array([ranked.score for ranked in result.ranking]))
    p_match = np.array([ranked.p_match for ranked in result.ranking], dtype=np.float64)
    besides = [sum(ranked.contributions.get(name, 0.0) for name in ORDER_ONLY) for ranked in result.ranking]
    return np.asarray(log_odds_of(np.clip(p_match, _CERTAIN, 1.0 - _CERTAIN)) + np.array(besides))


def _features(
    result: RerankResult, labels: NDArray[np.int64], vectors: NDArray[np.float32] | None
) -> tuple[Floats, list[str], Floats, Floats]:
    """What the weights are of: (n, f) values, the f names, and means and deviations of the weights' priors, (f,)."""
    names, columns = ["base", "prior"], [np.ones(len(labels)), _standardised(_priors(result))]
    means, deviations = [0.0, 0.0], [_DEVIATIONS["base"], _DEVIATIONS["prior"]]
    for predicate, answers in _answers(result).items():
        names.append(predicate)
        columns.append(answers)
        means.append(0.0)
        deviations.append(_DEVIATIONS["predicate"])
    if vectors is not None:
        for name, label, mean in (("accepted", 1, LIKE_ACCEPTED), ("rejected", 0, LIKE_REJECTED)):
            names.append(name)
            columns.append(_likeness(vectors, labels == label))
            means.append(mean)
            deviations.append(_DEVIATIONS["likeness"])
    return np.stack(columns, axis=1), names, np.array(means), np.array(deviations)


def _priors(result: RerankResult) -> Floats:
    return np.array([ranked.prior for ranked in result.ranking], dtype=np.float64)


def _answers(result: RerankResult) -> dict[str, Floats]:
    """Predicate id -> (n,) log-odds that it holds, scaled. An image without an answer has the mean of those with one,
    so that the weight changes no order among such images."""
    verdicts = verdicts_by_image(result)
    found = {}
    for predicate in result.predicates:
        said = [verdicts.get(ranked.image_id, {}).get(predicate.id) for ranked in result.ranking]
        p = np.array([np.nan if each is None or each.p_expected is None else each.p_expected for each in said])
        answered = np.isfinite(p)
        if answered.any():
            odds = log_odds_of(np.clip(p, _CERTAIN, 1.0 - _CERTAIN)) / _PREDICATE_SCALE
            found[predicate.id] = np.where(answered, odds, odds[answered].mean())
    return found


def _likeness(vectors: NDArray[np.float32], group: NDArray[np.bool_]) -> Floats:
    """(n,) mean cosine to the images of a group, each image's likeness to itself left out; 0 for no other image."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), _CERTAIN)
    others = group.sum() - group
    sums = centred @ centred[group].sum(axis=0) - group * (centred * centred).sum(axis=1)
    return np.asarray(np.where(others > 0, sums / np.maximum(others, 1), 0.0))


def _standardised(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / max(float(values.std()), _CERTAIN))


def _fitted(before: Floats, features: Floats, labels: Floats, means: Floats, deviations: Floats) -> Floats:
    """(f,) the weights of greatest posterior probability: Newton's method, in steps of bounded length."""
    weights, precision = means.copy(), 1.0 / deviations**2
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-(before + features @ weights)))
        gradient = features.T @ (p - labels) + precision * (weights - means)
        curvature = (features * (p * (1.0 - p))[:, None]).T @ features + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        length = float(np.linalg.norm(step))
        weights = weights - step * min(1.0, _LONGEST_STEP / max(length, _CERTAIN))
        if length < _CERTAIN:
            break
    return weights


def _sentences(
    result: RerankResult, weights: Sequence[Weight], moved: Mapping[str, int], labels: NDArray[np.int64], likeness: bool
) -> list[str]:
    """What changed, for people."""
    accepted, rejected = int((labels == 1).sum()), int((labels == 0).sum())
    questions = {predicate.id: predicate.question for predicate in result.predicates}
    by = {weight.source: weight.by for weight in weights}
    said = [f"Refitted to {accepted} accepted and {rejected} rejected images; no question was asked."]
    if accepted and by.get("accepted", 0.0) > 0:
        said.append(f"Images like the accepted ones rise (up to {by['accepted']:.1f} log-odds).")
    if rejected and by.get("rejected", 0.0) < 0:
        said.append(f"Images like the rejected ones sink (up to {-by['rejected']:.1f} log-odds).")
    if not likeness:
        said.append("The images have no vectors here, so their likeness to the marked ones does not count.")
    others = sorted((w for w in weights if w.source not in ("accepted", "rejected")), key=lambda w: -abs(w.by))
    for weight in [w for w in others if abs(w.by) >= _WORTH_SAYING][:_NAMED]:
        what = "The first stage's score" if weight.source == "prior" else f"“{questions[weight.source]}”"
        said.append(f"{what} counts {'more' if weight.by > 0 else 'less'} ({weight.by:+.1f} log-odds).")
    risen = max(moved.items(), key=lambda each: each[1], default=("", 0))
    steps = sum(step != 0 for step in moved.values())
    said.append(f"{steps} of {len(moved)} other images change their rank.")
    if risen[1] > 0:
        said.append(f"{risen[0]} rises most, by {risen[1]} ranks.")
    return said

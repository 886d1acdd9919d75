"""What the views of a trace share: verdicts by image, comparisons by what was compared, and the stages' costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter

from pydantic import BaseModel, ConfigDict

from fieldscope.agent.types import Asked, Comparison, Draw, RankedCandidate, RerankResult, Verdict
from fieldscope.agent.usage import Usage
from fieldscope.agent.verdicts import latest
from fieldscope.core.errors import ConfigError, one_line
from fieldscope.core.validation import unknown_name

_SHOWN_WORDS = 60  # characters of a document

RELATIVE = "P(match) is relative to this list of images; it can't be compared with that of another list."
"""What is said beside P(match) where a result is `relative`."""


class View(BaseModel):
    """A part of a view. It goes to programs as JSON, and to people as a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Matchup(View):
    """Candidates that were compared with each other, and what was said each time they were shown.

    `images` are in the order in which they were first shown. `agree` says whether the same image was the best in every
    order; it is None unless two orders were answered.
    """

    images: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    agree: bool | None

    def p_best(self, comparison: Comparison) -> tuple[float, ...]:
        """P(best) along `images`, in whatever order they were shown; empty unless answered."""
        said = dict(zip(comparison.shown, comparison.probabilities, strict=False))
        return tuple(said[image_id] for image_id in self.images) if len(said) == len(self.images) else ()


class StageCost(View):
    """What one stage asked and what it moved.

    `moved` maps each image that changed its rank to how many ranks it rose (negative: fell); it is None for a stage
    that can move nothing, and where a result does not tell its stages apart.
    """

    stage: str
    usage: Usage
    moved: Mapping[str, int] | None = None


def named_document(ranked: RankedCandidate) -> str:
    """A candidate's id and, of a document with words, how these begin."""
    return f"{ranked.image_id}: {one_line(ranked.text, _SHOWN_WORDS)}" if ranked.text else ranked.image_id


def ranked_image(result: RerankResult, image_id: str) -> RankedCandidate:
    """The image at its rank. Raises `ConfigError` for one that is not in the ranking."""
    for candidate in result.ranking:
        if candidate.image_id == image_id:
            return candidate
    raise ConfigError(unknown_name("image", image_id, (candidate.image_id for candidate in result.ranking)))


def verdicts_by_image(result: RerankResult) -> dict[str, dict[str, Verdict]]:
    """For each image, by predicate id, the verdict that counts. Predicates that a refinement gave up count no more."""
    counting = {predicate.id for predicate in result.predicates}
    found: dict[str, dict[str, Verdict]] = {}
    for verdict in latest([verdict for verdict in result.verdicts if verdict.predicate in counting]):
        found.setdefault(verdict.image_id, {})[verdict.predicate] = verdict
    return found


def judged_images(result: RerankResult) -> frozenset[str]:
    """The images about which a model answered a question, a comparison or with a score. Where nothing was to be asked,
    because the strategy ranks by the first stage alone, these are all images."""
    asked = (*result.verdicts, *result.comparisons, *result.scores)
    if not asked and result.ended is None:
        return frozenset(ranked.image_id for ranked in result.ranking)
    verdicts = (verdict.image_id for verdict in result.verdicts if verdict.state == "answered")
    scores = (score.image_id for score in result.scores if score.state == "answered")
    shown = (image_id for c in result.comparisons if c.state == "answered" for image_id in c.shown)
    return frozenset((*verdicts, *scores, *shown))


def weakest(verdicts: Iterable[Verdict]) -> Verdict | None:
    """What counts most against an image: the lowest P(expected). Where nothing was answered, a verdict that is unknown
    before one that was not asked; None where there is none."""
    order = {"answered": 0, "unknown": 1, "not_asked": 2}
    return min(verdicts, key=lambda v: (order[v.state], v.p_expected or 0.0), default=None)


def matchups(comparisons: Sequence[Comparison]) -> tuple[Matchup, ...]:
    """Comparisons of the same images side by side, in the order in which they were first asked."""
    together: dict[frozenset[str], list[Comparison]] = {}
    for comparison in comparisons:
        together.setdefault(frozenset(comparison.shown), []).append(comparison)
    return tuple(
        Matchup(images=group[0].shown, comparisons=tuple(group), agree=_agree(group)) for group in together.values()
    )


def first_shown_wins(found: Iterable[Matchup]) -> float | None:
    """The mean P(best) of whatever was shown first, over pairs that were answered in both orders: 0.5 without position
    bias. None where there is no such pair."""
    both = [m for m in found if m.agree is not None and len(m.images) == 2]
    shares = [c.probabilities[0] for m in both for c in m.comparisons if c.probabilities]
    return sum(shares) / len(shares) if shares else None


def stage_costs(result: RerankResult) -> tuple[StageCost, ...]:
    """A line for each stage that asked, or was to ask, in their order, the calls of `score` being the pairs that a
    scoring model scored; and `rank` with the whole movement."""
    asked: dict[str, list[Asked]] = {}
    for call in result.calls:
        asked.setdefault(call.stage, []).append(call)
    verified = [call for verdict in result.verdicts if verdict.look is None for call in verdict.calls]
    asked["score"] = list(result.scores)
    asked["verify"] = [call for call in verified if not is_thought(call)]
    asked["reason"] = [call for call in verified if is_thought(call)]
    asked["inspect"] = [call for verdict in result.verdicts if verdict.look is not None for call in verdict.calls]
    asked["compare"] = list(result.comparisons)
    asked["explain"] = list(result.reasons)
    moved = _moved_by_stage(result)
    costs = [
        StageCost(stage=stage, usage=Usage.of(questions), moved=moved.get(stage))
        for stage, questions in asked.items()
        if questions
    ]
    return (*costs, StageCost(stage="rank", usage=Usage(), moved=moved["rank"]))


def is_thought(question: Asked) -> bool:
    """Whether it is one of the calls of a verdict that thought first."""
    return isinstance(question, Draw) and question.reasoned


def error_counts(result: RerankResult) -> dict[str, int]:
    """Why calls gave no answer, and how often; the most frequent first."""
    verified = (asked for verdict in result.verdicts for asked in verdict.draws or (verdict,))
    everything = chain(result.calls, verified, result.comparisons, result.reasons)
    reasons = [question.error or "no reason given" for question in everything if question.state == "unknown"]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons), key=lambda r: (-reasons.count(r), r))}


def _moved_by_stage(result: RerankResult) -> dict[str, dict[str, int]]:
    before = {r.image_id: r.prior_rank for r in result.ranking}
    after = {r.image_id: r.rank for r in result.ranking}
    moved = {"rank": _moved(before, after)}
    looked_closer = any(verdict.look is not None for verdict in result.verdicts)
    asked = (("verify", result.verdicts), ("inspect", looked_closer), ("compare", result.comparisons))
    stages = [stage for stage, questions in asked if questions]
    if not stages and result.scores:
        moved["score"] = moved["rank"]
    elif len(stages) == 1:
        moved[stages[0]] = moved["rank"]
    elif stages and all(r.contributions for r in result.ranking):
        ranks = before
        for place, stage in enumerate(stages):
            then = _ranks_without(result, [_ADDS[later] for later in stages[place + 1 :]], before)
            moved[stage] = _moved(ranks, then)
            ranks = then
    return moved


_ADDS = {"inspect": "looks", "compare": "comparisons"}
"""What a stage adds to the score, by the name of the contribution."""


def _ranks_without(result: RerankResult, sources: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """The ranks of the images without some contributions to their scores."""
    if not sources:
        return {r.image_id: r.rank for r in result.ranking}
    without = {
        r.image_id: sum(r.contributions.values()) - sum(r.contributions.get(source, 0.0) for source in sources)
        for r in result.ranking
    }
    order = sorted(without, key=lambda image_id: (-without[image_id], before[image_id]))
    return {image_id: rank for rank, image_id in enumerate(order, start=1)}


def _moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {image_id: before[image_id] - rank for image_id, rank in after.items() if before[image_id] != rank}


def _agree(group: Sequence[Comparison]) -> bool | None:
    answered = {c.shown: max(zip(c.shown, c.probabilities, strict=False), key=itemgetter(1))[0] for c in group
                if c.probabilities}  # fmt: skip
    return len(set(answered.values())) == 1 if len(answered) > 1 else None

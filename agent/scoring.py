"""The scores of a scoring model: asking for them within a budget, and what they say of a query's candidates.

An image without a score is *unknown*, and never a 0: it stays where the first stage had put it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fieldscope.agent.budget import Account
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.call import one_line
from fieldscope.agent.fusion import fuse, sigmoid, standardise
from fieldscope.agent.resources import CandidateScorer
from fieldscope.agent.strategies.ordering import Fusion
from fieldscope.agent.types import ImageScore, Predicate, Verdict
from fieldscope.core.errors import BudgetError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Candidate, Query, Scale

_AT_ONCE = 32  # images that are scored between two looks at the budget


def score_key(query: Query, question: str | None = None, instruction: str | None = None) -> str:
    """What is scored, of whatever images: the SHA-256 of the request, or of the question, with the instruction."""
    about: Any = query.model_dump(mode="json", exclude={"id"}) if question is None else question
    return fingerprint({"about": about, "instruction": instruction})


async def ask_scorer(
    scorer: CandidateScorer,
    account: Account,
    query: Query,
    image_ids: Sequence[str],
    predicate: Predicate | None = None,
    instruction: str | None = None,
) -> tuple[ImageScore, ...]:
    """The score of each image, in order, for the query or for a predicate's question; *not asked* from where the
    budget ends. Tokens are charged as far as the scorer counts them; pairs are no calls."""
    name, question = (predicate.id, predicate.question) if predicate else (None, None)
    scores: list[ImageScore] = []
    account.begin()
    for start in range(0, len(image_ids), _AT_ONCE):
        some = image_ids[start : start + _AT_ONCE]
        refused = account.empty(calls=False)
        if refused is None:
            try:
                async with account.until_the_deadline():
                    said = await scorer.scores(query, some, question, instruction)
            except BudgetError as error:
                refused = one_line(error)
            else:
                account.spend(sum(score.prompt_tokens + score.completion_tokens for score in said))
                scores += (score.model_copy(update={"predicate": name}) for score in said)
        if refused is not None:
            left = image_ids[len(scores) :]
            scores += (ImageScore(image_id=i, predicate=name, state="not_asked", error=refused) for i in left)
            break
    return tuple(scores)


def query_scores(scores: Sequence[ImageScore]) -> dict[str, float]:
    """Image -> its score for the query, of those that have one."""
    return {score.image_id: score.value for score in scores if score.predicate is None and score.value is not None}


def standing(
    candidates: Sequence[Candidate], scores: Sequence[ImageScore], priors: Sequence[float], scale: Scale | None = None
) -> tuple[float, ...]:
    """The score of each candidate, standardised by a fitted `scale`, or without one over those that have a score. A
    candidate without a score stands as far from the mean as its standardised prior, along `priors`, so that only the
    first stage speaks for or against it."""
    values = query_scores(scores)
    scored = [candidate.image_id for candidate in candidates if candidate.image_id in values]
    known = dict(zip(scored, _standard([values[image_id] for image_id in scored], scale), strict=True))
    return tuple(known.get(c.image_id, prior) for c, prior in zip(candidates, priors, strict=True))


def _standard(values: Sequence[float], scale: Scale | None) -> Sequence[float]:
    return standardise(values) if scale is None else [scale.standing(value) for value in values]


def with_scores_as_priors(candidates: Sequence[Candidate], scores: Sequence[ImageScore]) -> tuple[Candidate, ...]:
    """The candidates, given in the order of their first-stage scores, in the order of the scorer's, which become the
    priors; equal scores keep the first stage's order, and an image without a score keeps its place."""
    ranked = fuse(candidates, query_scores(scores), Fusion(method="score"))
    return tuple(Candidate(each.image_id, each.score) for each in ranked)


def scored_verdicts(
    predicates: Sequence[Predicate], scores: Sequence[ImageScore], calibration: Calibration
) -> tuple[Verdict, ...]:
    """A verdict for each score of a predicate. P(yes) is the sigmoid of the standardised score, scaled and shifted as
    the calibration says."""
    verdicts: list[Verdict] = []
    for predicate in predicates:
        own = {score.image_id: score for score in scores if score.predicate == predicate.id}
        values = {image_id: score.value for image_id, score in own.items() if score.value is not None}
        standard = dict(zip(values, _standard(list(values.values()), calibration.predicate_values), strict=True))
        for image_id, score in own.items():
            p_yes = None
            if image_id in standard:
                p_yes = sigmoid(calibration.scored_offset + calibration.scored_scale * standard[image_id])
            verdicts.append(
                Verdict(
                    predicate=predicate.id,
                    image_id=image_id,
                    mode="scored",
                    state=score.state,
                    error=score.error,
                    p_yes=p_yes,
                    p_expected=p_yes if p_yes is None or predicate.expected == "yes" else 1.0 - p_yes,
                )
            )
    return tuple(verdicts)


def read_again(
    verdicts: Sequence[Verdict],
    predicates: Sequence[Predicate],
    scores: Sequence[ImageScore],
    calibration: Calibration,
) -> tuple[Verdict, ...]:
    """The verdicts, those of the scorer as this calibration has them."""
    kept = tuple(verdict for verdict in verdicts if verdict.mode != "scored")
    return kept if len(kept) == len(verdicts) else (*kept, *scored_verdicts(predicates, scores, calibration))


def said(scores: Sequence[ImageScore], about: Mapping[str, Any]) -> dict[str, Any]:
    """What a trace event records of scores that came together."""
    asked = [score for score in scores if score.state != "not_asked"]
    return {
        **about,
        "pairs": len(asked),
        "states": dict(Counter(score.state for score in scores)),
        "cached": sum(score.cached for score in asked),
        "tokens": sum(score.prompt_tokens + score.completion_tokens for score in asked),
        "scores": [[score.image_id, score.value] for score in scores],
    }

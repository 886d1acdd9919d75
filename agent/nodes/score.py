"""score: what a scoring model says of all candidates, for the query and, where a strategy says so, its predicates."""

from __future__ import annotations

from typing import Any

from fieldscope.agent.calibration import UNCALIBRATED
from fieldscope.agent.context import Context
from fieldscope.agent.resources import CandidateScorer
from fieldscope.agent.scoring import ask_scorer, said, score_key, scored_verdicts, with_scores_as_priors
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.scoring import Score
from fieldscope.agent.types import ImageScore, Predicate
from fieldscope.core.errors import ConfigError


async def score(state: RerankState, context: Context) -> dict[str, Any]:
    """The scores of the candidates that have none yet; where they are the prior, the candidates in their order."""
    settings, scorer = _scoring(context)
    known = {each.image_id for each in state.scores if each.predicate is None}
    new = [candidate.image_id for candidate in state.candidates if candidate.image_id not in known]
    if not new and (state.given is not None or not state.first_stage):
        return {}
    scores = await ask_scorer(scorer, context.account, state.query, new, instruction=settings.instruction)
    about = {"round": state.round, "key": score_key(state.query, instruction=settings.instruction)}
    update: dict[str, Any] = {"scores": scores, "trace": (state.event("scored", said(scores, about)),)}
    if context.strategy.retrieve.prior == "scorer":
        all_scores = (*state.scores, *scores)
        update |= {
            "candidates": with_scores_as_priors(state.candidates, all_scores),
            "first_stage": state.candidates,
        }
    return update | _ended(state, scores)


async def score_predicates(state: RerankState, context: Context) -> dict[str, Any]:
    """The scores of the window's images for each predicate, and the verdicts that they come to."""
    settings, scorer = _scoring(context)
    update: dict[str, Any] = {}
    scores: list[ImageScore] = []
    events = []
    pending = unscored(state, context)
    for predicate, image_ids in pending:
        own = await ask_scorer(scorer, context.account, state.query, image_ids, predicate, settings.instruction)
        key = score_key(state.query, predicate.question, settings.instruction)
        events.append(state.event("scored", said(own, {"round": state.round, "predicate": predicate.id, "key": key})))
        scores += own
    # P(yes) depends on all images that were scored for the predicate, those of an earlier round among them.
    predicates = [predicate for predicate, _ in pending]
    calibration = context.resources.calibration or UNCALIBRATED
    verdicts = scored_verdicts(predicates, (*state.scores, *scores), calibration)
    update = {"scores": tuple(scores), "verdicts": verdicts, "trace": tuple(events)}
    return update | _ended(state, scores)


def unscored(state: RerankState, context: Context) -> list[tuple[Predicate, list[str]]]:
    """The predicates that the scorer answers, each with the images of the window that it has not seen yet."""
    settings, verify = context.strategy.score, context.strategy.verify
    if settings is None or not settings.predicates or verify is None:
        return []
    window = state.widened or verify.top_k or len(state.candidates)
    known = {(each.predicate, each.image_id) for each in state.scores}
    pending = []
    for predicate in state.predicates:
        images = [c.image_id for c in state.candidates[:window] if (predicate.id, c.image_id) not in known]
        if images and predicate.kind != "query":
            pending.append((predicate, images))
    return pending


def _scoring(context: Context) -> tuple[Score, CandidateScorer]:
    """The stage's settings and the scorer. Raises `ConfigError` where either is missing."""
    strategy, scorer = context.strategy, context.resources.scorer
    if strategy.score is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage `score`; add it to the strategy")
    if scorer is None:
        raise no_scorer(strategy.name)
    return strategy.score, scorer


def no_scorer(strategy: str) -> ConfigError:
    """The error of a strategy that scores without a scoring model."""
    return ConfigError(
        f"strategy {strategy!r} needs a scoring model; name one with --scorer URL#MODEL, or --scorer path:FOLDER"
    )


def _ended(state: RerankState, scores: list[ImageScore] | tuple[ImageScore, ...]) -> dict[str, Any]:
    cut_off = any(each.state == "not_asked" for each in scores)
    return {"ended": state.ended or "score"} if cut_off else {}

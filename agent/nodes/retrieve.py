"""retrieve: the candidates of a query, given or found, in the order of their prior."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fieldscope.agent.context import Context
from fieldscope.agent.fusion import prior_order
from fieldscope.agent.state import RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import TraceEvent
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Candidate, Query, Search


async def retrieve(state: RerankState, context: Context) -> dict[str, Any]:
    """Put the candidates in prior order. A later round looks further, and keeps those that were found before.

    Raises `ConfigError` where there are neither given candidates nor a retriever, or unusable candidates.
    """
    strategy, retriever = context.strategy, context.resources.retriever
    if state.round and state.given is not None:
        return {}
    if state.given is not None:
        candidates = prior_order(state.given)[: state.top_k]
        data: dict[str, Any] = {"candidates": len(candidates), "given": True}
    elif retriever is not None:
        search = _search(state, strategy)
        found = await asyncio.to_thread(retriever.search, search)
        before = state.first_stage or state.candidates
        candidates = _merged(found, before, lasting=strategy.retrieve.searched_prior == "query")
        data = {
            "candidates": len(candidates),
            "given": False,
            "round": state.round,
            "k": search.k,
            "new": len(candidates) - len(before),
            "search": search_key(search),
            "found": [[candidate.image_id, candidate.prior] for candidate in found],
        }
        if any(candidate.standing is not None for candidate in found):
            data["standings"] = [candidate.standing for candidate in found]
    else:
        raise ConfigError(f"query {state.query.id!r} has no candidates; give candidates, or an index to search")
    events = [state.event("retrieved", data)]
    if not state.round:
        events.insert(0, TraceEvent(kind="started", at=0.0, data=_setting(state.query, context)))
    return {"candidates": candidates, "trace": tuple(events)}


def _wanted(state: RerankState, strategy: Strategy) -> int:
    k = state.top_k or strategy.retrieve.top_k
    return math.ceil(k * strategy.refine.widen**state.round) if strategy.refine else k


def _search(state: RerankState, strategy: Strategy) -> Search:
    """The query's own words alone, unless its meaning was thought out. Where the descriptions alone search, each counts
    that is given, also one that says the same as another, as in ImageScope (arXiv 2503.10166)."""
    thought, settings = state.synthesis, strategy.retrieve
    descriptions: tuple[str, ...] = ()
    if thought and thought.fallback is None:
        each = (thought.core, thought.detailed, thought.comprehensive)
        descriptions = each if settings.vector == "descriptions" else thought.descriptions
    return Search(
        state.query,
        _wanted(state, strategy),
        descriptions,
        settings.caption_weight,
        settings.searched_prior if descriptions else "fused",
        settings.instruction,
        descriptions_only=settings.vector == "descriptions",
        keeps_reference=settings.reference == "kept",
        tiles=settings.tiles,
    )


def search_key(search: Search) -> str:
    """What a search looks for, however many images it wants: the SHA-256 of the query without its id, and of the
    settings; a setting that has its default is left out, if it is newer than the first recordings."""
    later = {
        "prior": search.prior if search.prior != "fused" else None,
        "instruction": search.instruction,
        "tiles": search.tiles or None,
        "descriptions_only": search.descriptions_only or None,
        "keeps_reference": search.keeps_reference or None,
    }
    return fingerprint(
        {
            "query": search.query.model_dump(mode="json", exclude={"id"}),
            "descriptions": list(search.descriptions),
            "caption_weight": search.caption_weight,
            **{name: value for name, value in later.items() if value is not None},
        }
    )


def _merged(found: Sequence[Candidate], before: Sequence[Candidate], lasting: bool) -> tuple[Candidate, ...]:
    """What was found, and what only an earlier search had found. The latter's priors, unless they are `lasting` ones,
    are for other descriptions; under these they can't be above the last that was found, or they would have been
    found."""
    again = {candidate.image_id for candidate in found}
    missed = [candidate for candidate in before if candidate.image_id not in again]
    if found and not lasting:
        last = min(found, key=lambda candidate: candidate.prior)
        missed = [
            replace(each, prior=last.prior, standing=last.standing) if each.prior > last.prior else each
            for each in missed
        ]
    return prior_order((*found, *missed))


def _setting(query: Query, context: Context) -> dict[str, Any]:
    """Everything besides the query that decides the ranking."""
    resources, strategy = context.resources, context.strategy
    return {
        "strategy": strategy.name,
        "strategy_fingerprint": strategy.fingerprint,
        "prompts": {prompt.name: prompt.fingerprint for prompt in strategy.prompts},
        "model": resources.lmms.identity(strategy.roles(query.reference_image is not None)),
        "calibrated": resources.calibration is not None and resources.calibration.key is not None,
        **({"scorer": resources.scorer.fingerprint} if strategy.score and resources.scorer else {}),
    }

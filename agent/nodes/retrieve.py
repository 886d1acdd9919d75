"""retrieve: the candidates of a query, given or found, in the order of their prior."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agent.deps import Deps
from agent.fusion import prior_order
from agent.state import RerankState
from agent.strategies.strategy import Strategy
from agent.types import TraceEvent
from core.errors import ConfigError


async def retrieve(state: RerankState, *, deps: Deps, strategy: Strategy) -> dict[str, Any]:
    """Start the clock, and put the candidates in prior order.

    Raises `ConfigError` where there are neither given candidates nor a retriever, or unusable candidates.
    """
    started = time.monotonic()
    if state.given is not None:
        candidates = prior_order(state.given)[: state.top_k]
    elif deps.retriever is not None:
        k = state.top_k or strategy.retrieve.top_k
        candidates = prior_order(await asyncio.to_thread(deps.retriever.search, state.query, k))
    else:
        raise ConfigError(f"query {state.query.id!r} has no candidates; give some, or an index to search")
    begun = {
        "strategy": strategy.name,
        "strategy_fingerprint": strategy.fingerprint,
        "prompts": {prompt.name: prompt.fingerprint for prompt in strategy.prompts},
        "model": deps.lmm.identity if deps.lmm and strategy.verify else None,
    }
    found = {"candidates": len(candidates), "given": state.given is not None}
    return {
        "started": started,
        "candidates": candidates,
        "trace": (
            TraceEvent(kind="started", at=0.0, data=begun),
            TraceEvent(kind="retrieved", at=time.monotonic() - started, data=found),
        ),
    }

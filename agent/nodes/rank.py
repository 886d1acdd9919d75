"""rank: from prior and verdicts to a strict order, and to the result with everything that led to it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from agent.deps import Deps
from agent.fusion import fuse
from agent.state import RerankState
from agent.strategies.strategy import Strategy
from agent.types import RerankResult, TraceEvent, Verdict, unknown_flag


def rank(state: RerankState, *, deps: Deps, strategy: Strategy) -> dict[str, Any]:
    """The result. Questions that were never sent, e.g. about images outside the window, appear as not asked."""
    answered = {v.image_id: v.p_expected for v in state.verdicts if v.p_expected is not None}
    ranking = fuse(state.candidates, answered, strategy.fusion)
    verdicts = (*state.verdicts, *_not_asked(state))
    counts = Counter(verdict.state for verdict in verdicts)
    ranked = {name: counts[name] for name in ("answered", "unknown", "not_asked")}
    unknown = unknown_flag(verdicts)
    result = RerankResult(
        query_id=state.query.id,
        query_text=state.query.text,
        strategy=strategy.name,
        ranking=ranking,
        predicates=state.predicates,
        verdicts=verdicts,
        trace=(*state.trace, TraceEvent(kind="ranked", at=time.monotonic() - state.started, data=ranked)),
        flags=(*deps.flags, *([unknown] if unknown else [])),
    )
    return {"result": result}


def _not_asked(state: RerankState) -> list[Verdict]:
    judged = {(verdict.image_id, verdict.predicate) for verdict in state.verdicts}
    return [
        Verdict(predicate=predicate.id, image_id=candidate.image_id, state="not_asked")
        for candidate in state.candidates
        for predicate in state.predicates
        if (candidate.image_id, predicate.id) not in judged
    ]

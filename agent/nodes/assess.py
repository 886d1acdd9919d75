"""assess: are the candidates good enough, and if not, what is wrong?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.context import Context
from fieldscope.agent.posterior import Belief, believe
from fieldscope.agent.query_text import mentions
from fieldscope.agent.state import Next, RerankState
from fieldscope.agent.strategies.query_stages import Refine
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.verdicts import latest
from fieldscope.core.errors import ConfigError

_CLEAR = 0.8  # P beyond which a verdict counts as clear
_FEW = 10  # answers below which a predicate is not judged
_CONTRADICTED = 0.2  # share of images


def assess(state: RerankState, context: Context) -> Next:
    """Go on to the comparisons, or think again where there is a fault and rounds and budget are left."""
    strategy = context.strategy
    onward = "pair" if strategy.compare else "rank"
    refine = strategy.refine
    if refine is None or not state.predicates:
        return Next(onward)
    belief = believe(state, context.resources, strategy)
    findings = {
        "confirmed": int((belief.p_match > 0.5).sum()),
        "contradicted": contradicted(state),
        "separates_nothing": [p.id for k, p in enumerate(belief.predicates) if _same_for_all(belief, k)],
    }
    fault = fault_text(kind, strategy) if (kind := worst_fault(belief, state, refine)) else ""
    over = state.round >= refine.rounds or context.account.empty() is not None
    again = bool(fault) and not over
    events = [state.event("assessed", {**findings, "wanting": fault, "again": again})]
    if not again:
        return Next(onward, {"trace": tuple(events)})
    window = strategy.verify.top_k if strategy.verify else None
    widened = math.ceil((state.widened or window) * refine.widen) if window else None
    events.append(state.event("refined", {"round": state.round + 1, "because": fault, "window": widened}))
    update: dict[str, Any] = {
        "round": state.round + 1,
        "fault": fault,
        "widened": widened,
        "trace": tuple(events),
    }
    return Next("synthesize", update)


def worst_fault(belief: Belief, state: RerankState, refine: Refine) -> str:
    """The form that words the worst fault; empty where there is none."""
    if separates_nothing(belief):
        return "indistinct"
    if contradicted(state) > _CONTRADICTED:
        return "contradiction"
    if int((belief.p_match > 0.5).sum()) < refine.fewest:
        return "few"
    return ""


def fault_text(kind: str, strategy: Strategy) -> str:
    """A fault in words for the model that thinks again, as its prompt has them. Raises `ConfigError` for a strategy
    without a synthesis."""
    if strategy.synthesize is None:
        raise ConfigError(f"strategy {strategy.name!r} has no stage `synthesize`; add it to the strategy")
    return strategy.synthesize.again.form(kind)


def contradicted(state: RerankState) -> float:
    """The share of images that are said not to show a subject, and to show something about that very subject."""
    subjects = [p for p in state.predicates if p.kind == "subject" and p.expected == "yes" and p.words]
    said: dict[str, dict[str, float]] = {}
    for verdict in latest(state.verdicts):
        if verdict.p_yes is not None:
            said.setdefault(verdict.image_id, {})[verdict.predicate] = verdict.p_yes
    against = 0
    for answers in said.values():
        against += any(
            answers.get(subject.id, 1.0) < 1.0 - _CLEAR and answers.get(other.id, 0.0) > _CLEAR
            for subject in subjects
            for other in state.predicates
            if other.id != subject.id and other.expected == "yes" and mentions(other.question, subject.words)
        )
    return against / len(said) if said else 0.0


def separates_nothing(belief: Belief) -> bool:
    """Whether a predicate that was asked often enough holds of no image: its words may be at fault. Where the whole
    query holds of none, there may just be no match."""
    parts = [k for k, predicate in enumerate(belief.predicates) if predicate.kind != "query"]
    return any(_holds_of_none(belief, k) for k in parts)


def _same_for_all(belief: Belief, k: int) -> bool:
    return _holds_of_none(belief, k) or _all_clear(belief.holds[:, k] > _CLEAR, belief, k)


def _holds_of_none(belief: Belief, k: int) -> bool:
    return _all_clear(belief.holds[:, k] < 1.0 - _CLEAR, belief, k)


def _all_clear(clear: NDArray[np.bool_], belief: Belief, k: int) -> bool:
    """Whether the predicate was asked often enough, and is `clear` (n,) of all images that were asked about. Images at
    which a closer look was taken do not count: what is small in a picture is often denied of it as it is."""
    asked = belief.finished[:, k].copy()
    asked[list(belief.looks)] = False
    return int(asked.sum()) >= _FEW and bool(clear[asked].all())

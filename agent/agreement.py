"""How many predicates of a query have the expected answer for an image (ImageScope, arXiv 2503.10166)."""

from __future__ import annotations

import numpy as np

from fieldscope.agent.state import RerankState
from fieldscope.agent.verdicts import latest


def agreement(state: RerankState, window: int | None) -> list[float]:
    """For each candidate in the window (all, where None), in prior order, how many predicates have the expected
    answer. A question without an answer counts with the share of images that pass it."""
    columns = {predicate.id: k for k, predicate in enumerate(state.predicates)}
    rows = {candidate.image_id: i for i, candidate in enumerate(state.candidates[:window])}
    agrees = np.full((len(rows), len(columns)), np.nan)
    for verdict in latest(state.verdicts):
        if verdict.p_expected is not None and verdict.image_id in rows and verdict.predicate in columns:
            agrees[rows[verdict.image_id], columns[verdict.predicate]] = verdict.p_expected > 0.5
    answered = ~np.isnan(agrees)
    shares = np.where(answered, agrees, 0.0).sum(axis=0) / np.maximum(answered.sum(axis=0), 1)
    return [float(count) for count in np.where(answered, agrees, shares).sum(axis=1)]


def agreement_order(state: RerankState, window: int | None = None) -> list[str]:
    """Image ids by falling agreement, equal ones in prior order; those outside the window behind it."""
    counts = agreement(state, window)
    inside = sorted(range(len(counts)), key=lambda i: -counts[i])
    return [state.candidates[i].image_id for i in inside] + [c.image_id for c in state.candidates[len(counts) :]]

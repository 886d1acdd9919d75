"""How often a run says that nothing matches: where that is right, and where it is wrong."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldscope.agent.types import RerankResult
from fieldscope.eval.reported import RIGHTLY, WRONGLY


def nothing_values(results: Iterable[RerankResult], positives: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """`RIGHTLY` and `WRONGLY` of each query: 1 where nothing was said to match, 0 where it was not, and NaN where the
    metric is not about the query. `positives` (n,) says how many relevant images each query has.

    A query of which it was not decided, for example because a budget ended the questions, counts 0. Both metrics are
    NaN throughout for a run that decided it of no query: its strategy claims no probabilities, or it was made before
    there was such a decision.
    """
    decisions = [_decision(result) for result in results]
    if all(decision is None for decision in decisions):
        said = np.full(len(decisions), np.nan)
    else:
        said = np.array([float(bool(decision)) for decision in decisions])
    matched = np.asarray(positives) > 0
    return {RIGHTLY: np.where(matched, np.nan, said), WRONGLY: np.where(matched, said, np.nan)}


def _decision(result: RerankResult) -> bool | None:
    """Whether nothing was said to match; None where that was not decided."""
    ranked = next((event.data for event in reversed(result.trace) if event.kind == "ranked"), {})
    decided = ranked.get("nothing")
    return decided if isinstance(decided, bool) else None

"""Do scores react to the query?"""

from __future__ import annotations

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import TEMPLATE
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.subject import Kind

_LEAST = 0.1


def name_of(kind: Kind) -> str:
    return f"query and {kind}"


def judge_query(kind: Kind, grid: Grid) -> Finding:
    """How much of the scores' variation is due to query and document together."""
    name = name_of(kind)
    seen = (
        f"{grid.interplay:.0%} of the variation of {grid.scores.size} scores is due to query and document together, "
        "the rest to one of them alone"
    )
    if grid.interplay >= _LEAST:
        return Finding(name, "ok", seen, f"the order of {kind} depends on the query")
    meaning = f"the order of {kind} is the same for every query: the query does not reach the model as a query"
    return Finding(name, "fail", seen, meaning, f"check that the template contains query and document; {TEMPLATE}")

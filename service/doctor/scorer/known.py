"""Does the document that matches a query score above those that do not?"""

from __future__ import annotations

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import TEMPLATE, VISION
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.subject import Kind

GOOD = 0.75
"""The share of correct comparisons from which on a kind of document counts as understood; 0.5 is chance."""

_REVERSED = 0.25


def name_of(kind: Kind) -> str:
    return f"known {kind}"


def judge_known(kind: Kind, grid: Grid, probe: str) -> Finding:
    """Compare the matching document's score with the others' for the same query; `probe` names the set."""
    name, comparisons = name_of(kind), len(grid.scores) * (len(grid.scores) - 1)
    seen = (
        f"the matching one of two {kind} has the higher score in {grid.correct:.0%} of {comparisons} comparisons "
        f"({probe}, one document a call)"
    )
    if grid.correct == 1:
        return Finding(name, "ok", seen, f"scores of {kind} follow their content")
    if grid.correct >= GOOD:
        meaning = f"scores of {kind} follow their content, but not always"
        return Finding(name, "warn", seen, meaning, "use a stronger model, or check its template and instruction")
    if grid.correct <= _REVERSED:
        meaning = f"scores of {kind} are reversed: what does not match comes first"
        change = (
            'check that a higher score is better; vLLM: "classifier_from_token" lists the no before the yes, as in '
            '["no", "yes"]'
        )
        return Finding(name, "fail", seen, meaning, change)
    meaning = f"scores of {kind} do not follow their content, so a ranking by them is noise"
    change = f"use a trained reranker that takes {kind}; {VISION if kind == 'images' else TEMPLATE}"
    return Finding(name, "fail", seen, meaning, change)

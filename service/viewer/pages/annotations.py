"""All marks of a run."""

from __future__ import annotations

from collections import Counter

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.annotations import marked
from fieldscope.service.viewer.runs.run import Run


def page(run: Run) -> Page:
    """The list of marks, latest first."""
    rows = list(marked(run))
    counts = Counter((row.annotation.predicate is None, row.annotation.mark) for row in rows)
    return Page(
        address=addresses.annotations_page(run.key),
        template="annotations.html",
        title="Annotations",
        context={
            "run": run,
            "rows": rows,
            "verdicts": {mark: counts[False, mark] for mark in ("right", "wrong")},
            "images": {mark: counts[True, mark] for mark in ("right", "wrong")},
        },
        crumbs=[("Runs", addresses.INDEX), (run.name, addresses.run_page(run.key))],
        scripts=["annotations.js"],
        styles=["annotate.css"],
    )

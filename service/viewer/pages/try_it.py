"""Try it: a query over a collection of the service, the progress of its stages, and the ranking. Live only."""

from __future__ import annotations

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import Page

BUDGETS = (50, 200, 1000)
"""The choices of the largest number of questions to the model."""


PRECISIONS = (0.7, 0.8, 0.9, 0.95)
CONFIDENCES = (0.8, 0.9, 0.95)
"""The choices of a promised precision, and of how sure it must be; the last is the usual one."""


def page() -> Page:
    """The page with the form; its script requests everything else from the service."""
    return Page(
        address=addresses.TRY,
        template="try_it.html",
        title="Try it",
        context={
            "budgets": BUDGETS,
            "precisions": PRECISIONS,
            "confidences": CONFIDENCES,
        },
        crumbs=[("Runs", addresses.INDEX)],
        scripts=["try_it.js"],
        styles=["try_it.css"],
    )

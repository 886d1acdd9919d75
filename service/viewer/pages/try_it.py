"""Try it: a query over a collection of the service, the progress of its stages, and the ranking. Live only."""

from __future__ import annotations

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import Page

BUDGETS = (50, 200, 1000)
"""The choices of the largest number of questions to the model."""


def page() -> Page:
    """The page with the form; its script requests everything else from the service."""
    return Page(
        address=addresses.TRY,
        template="try_it.html",
        title="Try it",
        context={"budgets": BUDGETS},
        crumbs=[("Runs", addresses.INDEX)],
        scripts=["try_it.js"],
        styles=["try_it.css"],
    )

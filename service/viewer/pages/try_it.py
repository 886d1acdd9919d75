"""Try it: a query over a collection of the service, its stages as they happen, and the ranking. Served live only."""

from __future__ import annotations

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import Page

BUDGETS = (50, 200, 1000)
"""Questions to the model that may be chosen as the most to spend."""


def page() -> Page:
    """The form; what it can choose from, and all that follows, the script asks the service for."""
    return Page(
        address=addresses.TRY,
        template="try_it.html",
        title="Try it",
        context={"budgets": BUDGETS},
        crumbs=[("Runs", addresses.INDEX)],
        scripts=["try_it.js"],
        styles=["try_it.css"],
    )

"""The search page: a query over a collection of the service, the stages live, and its ranking to be marked. Live
only."""

from __future__ import annotations

from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.page import Page

PRECISIONS = (0.7, 0.8, 0.9, 0.95)
CONFIDENCES = (0.8, 0.9, 0.95)
"""The choices of a promised precision, and of how sure it must be; the last is the usual one."""

SCRIPTS = ("workbench_service.js", "workbench_stages.js", "workbench_large.js", "workbench_results.js", "workbench.js")


def page() -> Page:
    """The page with the form; its scripts request everything else from the service."""
    return Page(
        address=addresses.SEARCH,
        template="workbench.html",
        title="Search",
        context={"precisions": PRECISIONS, "confidences": CONFIDENCES},
        crumbs=[("Runs", addresses.INDEX)],
        scripts=SCRIPTS,
        styles=["workbench.css"],
    )

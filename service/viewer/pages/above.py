"""Two images of a query's ranking, and why one stands above the other."""

from __future__ import annotations

from fieldscope.agent.trace_above import above
from fieldscope.service.viewer.addresses import INDEX, above_page, image_page, query_page, run_page
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.rebuilt import asked_predicates
from fieldscope.service.viewer.runs.run import Run


def page(run: Run, query_id: str, image_id: str, other: str) -> Page:
    """The page of two images. Raises `ConfigError` if the result can't be read, and for one image twice."""
    result = run.result(query_id)
    found = above(result, image_id, other)
    return Page(
        address=above_page(run.key, query_id, image_id, other),
        template="above.html",
        title=f"{found.upper.image_id} above {found.lower.image_id}",
        crumbs=[
            ("Runs", INDEX),
            (run.name, run_page(run.key)),
            (query_id, query_page(run.key, query_id)),
            (image_id, image_page(run.key, query_id, image_id)),
        ],
        styles=["image.css"],
        context={
            "run": run,
            "result": result,
            "found": found,
            "named": {each.id: each.question for each in asked_predicates(result).values()},
            "pictures": run.pictures,
            "no_pictures": run.no_pictures,
        },
    )

"""`fieldscope trace`: why a query was ranked as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult


def _print_schema(context: click.Context, option: click.Parameter, requested: bool) -> None:
    if requested:
        from fieldscope.agent.trace import trace_schema

        show_json(trace_schema())
        context.exit()


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("query")
@click.option(
    "--why", "--image", "image", metavar="IMAGE", help="Show why this image has its rank: what raised or lowered it."
)
@click.option(
    "--above",
    "lower",
    metavar="IMAGE",
    help="With --why: show what separates the two images, whichever is above.",
)
@click.option(
    "--diff",
    "other",
    type=click.Path(path_type=Path),
    metavar="RUN_B",
    help="Compare with the same query in another run.",
)
@click.option("--all", "everything", is_flag=True, help="Show all images and comparisons, not only the first 20.")
@json_option
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON schema of a line of results.jsonl and exit.",
)
def trace(
    run: Path,
    query: str,
    image: str | None,
    lower: str | None,
    other: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Show what led to a ranking: thought, predicates, verdicts, comparisons, and what each stage moved.

    RUN is a run's folder (OUT/STRATEGY, or OUT if it holds one strategy); QUERY is the query's id or its text.
    """
    if image is not None and other is not None:
        raise click.UsageError("--why and --diff can't be combined; use one of them")
    if lower is not None and image is None:
        raise click.UsageError("--above compares two images; name the other one with --why IMAGE")
    from fieldscope.service.cli.tables.trace import SHOWN
    from fieldscope.service.workflows.trace import read_result

    limit = None if everything else SHOWN
    result = read_result(run, query)
    if image is not None and lower is not None:
        _show_above(result, image, lower, as_json)
    elif image is not None:
        _show_why(result, image, as_json)
    elif other is not None:
        _show_diff(result, read_result(other, query), limit, as_json)
    elif as_json:
        show_json(result.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace import render_trace

        show(render_trace(result, limit))


def _show_why(result: RerankResult, image: str, as_json: bool) -> None:
    from fieldscope.agent.trace_why import why

    explanation = why(result, image)
    if as_json:
        query = {"query_id": result.query_id, "query_text": result.query_text}
        show_json(query | explanation.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace_why import render_why

        show(render_why(result, explanation))


def _show_above(result: RerankResult, image: str, lower: str, as_json: bool) -> None:
    from fieldscope.agent.trace_above import above

    found = above(result, image, lower)
    if as_json:
        query = {"query_id": result.query_id, "query_text": result.query_text}
        show_json(query | found.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace_above import render_above

        show(render_above(result, found))


def _show_diff(a: RerankResult, b: RerankResult, limit: int | None, as_json: bool) -> None:
    from fieldscope.agent.trace_diff import diff

    difference = diff(a, b)
    if as_json:
        show_json(difference.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace_diff import render_diff

        show(render_diff(difference, limit))

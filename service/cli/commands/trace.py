"""`fieldscope trace`: why a query was ranked as it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldscope.core.errors import ConfigError
from fieldscope.core.reading import load_json
from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import json_option

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult

_RESULTS = "results.jsonl"
_HEAD = ("query_id", "query_text")


def _print_schema(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from fieldscope.agent.trace import trace_schema

        show_json(trace_schema())
        context.exit()


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("query")
@click.option(
    "--why", "--image", "image", metavar="IMAGE", help="Why this image is at its rank: what sank or raised it."
)
@click.option(
    "--diff",
    "other",
    type=click.Path(path_type=Path),
    metavar="RUN_B",
    help="The same query in another run, side by side.",
)
@click.option("--all", "everything", is_flag=True, help="All images and comparisons, not the first 20 only.")
@json_option
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON schema of a line of results.jsonl and exit.",
)
def trace(run: Path, query: str, image: str | None, other: Path | None, everything: bool, as_json: bool) -> None:
    """Show what led to a ranking.

    That is the thought, the predicates, the verdicts, the comparisons, and what each stage moved. RUN is a run's folder
    (OUT/STRATEGY, or OUT where it holds one strategy); QUERY is the query's id or its text.
    """
    if image is not None and other is not None:
        raise click.UsageError("--why and --diff are two different questions; ask one at a time")
    from fieldscope.agent.trace import result_from_json
    from fieldscope.service.cli.tables.trace import SHOWN

    limit = None if everything else SHOWN
    result = result_from_json(find_result(run_file(run), query))
    if image is not None:
        _show_why(result, image, as_json)
    elif other is not None:
        _show_diff(result, result_from_json(find_result(run_file(other), query)), limit, as_json)
    elif as_json:
        show_json(result.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace import render_trace

        show(render_trace(result, limit))


def _show_why(result: RerankResult, image: str, as_json: bool) -> None:
    from fieldscope.agent.trace_why import why

    found = why(result, image)
    if as_json:
        show_json({"query_id": result.query_id, "query_text": result.query_text, **found.model_dump(mode="json")})
    else:
        from fieldscope.service.cli.tables.trace_why import render_why

        show(render_why(result, found))


def _show_diff(a: RerankResult, b: RerankResult, limit: int | None, as_json: bool) -> None:
    from fieldscope.agent.trace_diff import diff

    found = diff(a, b)
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        from fieldscope.service.cli.tables.trace_diff import render_diff

        show(render_diff(found, limit))


def run_file(run: Path) -> Path:
    """The results in a run's folder, or in the only one below it."""
    if (run / _RESULTS).is_file():
        return run / _RESULTS
    below = sorted(run.glob(f"*/{_RESULTS}"))
    if len(below) == 1:
        return below[0]
    if below:
        runs = ", ".join(str(path.parent) for path in below)
        raise ConfigError(f"{run} holds several runs; name one of {runs}")
    raise ConfigError(f"{run} holds no run; give the folder that `fieldscope eval` wrote for a strategy")


def find_result(file: Path, query: str) -> str:
    """The last line of this query. Raises `ConfigError`, naming the nearest one, where there is none."""
    wanted = " ".join(query.split()).casefold()
    found = None
    texts: dict[str, str] = {}
    for line, head in _lines(file):
        texts[head["query_id"]] = head["query_text"]
        if head["query_id"] == query or " ".join(head["query_text"].split()).casefold() == wanted:
            found = line
    if found is not None:
        return found
    names = {text: f"{query_id} ({text})" for query_id, text in texts.items()}
    names |= {query_id: f"{query_id} ({text})" for query_id, text in texts.items()}
    near = difflib.get_close_matches(query, names, n=1, cutoff=0.0)
    such_as = f", such as {names[near[0]]}" if near else ""
    raise ConfigError(f"{file.parent} has no query {query!r}; it has {len(texts)}{such_as}")


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a run that can be read; one that was cut off by a kill can't."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                with suppress(ValueError):
                    head = load_json(line)
                    if isinstance(head, dict) and all(isinstance(head.get(key), str) for key in _HEAD):
                        yield line, head
    except OSError as error:
        raise ConfigError(f"{file} can't be read ({error.strerror}); check the file") from error

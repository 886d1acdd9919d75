"""`fieldscope trace`: why a query was ranked as it was."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from core.errors import ConfigError
from service.console import show, show_json
from service.options import json_option

_RESULTS = "results.jsonl"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("query")
@click.option("--image", metavar="ID", help="Everything about this image.")
@json_option
def trace(run: Path, query: str, image: str | None, as_json: bool) -> None:
    """Show what led to a ranking.

    That is the questions, the answers, and what moved. RUN is a run's folder (OUT/STRATEGY, or OUT where it holds one
    strategy); QUERY is the query's id or its text.
    """
    from agent.trace import render_trace, result_from_json

    result = result_from_json(find_result(run_file(run), query))
    view = render_trace(result, image)
    if as_json:
        told = result.model_dump(mode="json")
        if image is not None:
            told["ranking"] = [entry for entry in told["ranking"] if entry["image_id"] == image]
            told["verdicts"] = [entry for entry in told["verdicts"] if entry["image_id"] == image]
        show_json(told)
    else:
        show(view)


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
                    head = json.loads(line)
                    if isinstance(head, dict) and {"query_id", "query_text"} <= head.keys():
                        yield line, head
    except OSError as error:
        raise ConfigError(f"{file} can't be read ({error.strerror}); check the file") from error

"""The result of one query of a run, read from the run's folder."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.core.reading import load_json

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult

_RESULTS = "results.jsonl"
_HEAD = ("query_id", "query_text")


def read_result(run: Path, query: str) -> RerankResult:
    """The result of a query, by its id or text, in a run's folder or in the only one below `run`.

    Raises `ConfigError` where there is no run, or several, and, with the nearest one, where there is no such query.
    """
    from fieldscope.agent.trace import result_from_json

    return result_from_json(_find_line(_results_file(run), query))


def _results_file(run: Path) -> Path:
    """The results in a run's folder, or in the only one below it."""
    if (run / _RESULTS).is_file():
        return run / _RESULTS
    below = sorted(run.glob(f"*/{_RESULTS}"))
    if len(below) == 1:
        return below[0]
    if below:
        runs = ", ".join(str(path.parent) for path in below)
        raise ConfigError(f"{run} holds several runs; name one of {runs}")
    raise ConfigError(f"{run} holds no run; name the folder that `fieldscope eval` wrote for a strategy")


def _find_line(file: Path, query: str) -> str:
    """The last line of this query. Raises `ConfigError`, naming the nearest one, where there is none."""
    query_text = " ".join(query.split()).casefold()
    match = None
    texts: dict[str, str] = {}
    for line, head in _lines(file):
        texts[head["query_id"]] = head["query_text"]
        if head["query_id"] == query or " ".join(head["query_text"].split()).casefold() == query_text:
            match = line
    if match is not None:
        return match
    names = {text: f"{query_id} ({text})" for query_id, text in texts.items()}
    names |= {query_id: f"{query_id} ({text})" for query_id, text in texts.items()}
    near = difflib.get_close_matches(query, names, n=1, cutoff=0.0)
    hint = f"choose one of its {len(texts)}, such as {names[near[0]]}" if near else "choose a run that has results"
    raise ConfigError(f"{file.parent} has no query {query!r}; {hint}")


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

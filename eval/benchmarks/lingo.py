"""INQUIRE's own list of the queries in experts' lingo, where a user has it.

The paper (arXiv 2411.02537, its Table 5) reports these queries apart, and the benchmark's files do not mark them; its
authors give the list on request. It lies beside the tables or the Parquet files, as `lingo.txt` or `lingo.csv`: query
texts or ids, one a line, or a table with a column `query_text` or `query_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fieldscope.core.types import Query
from fieldscope.eval.benchmarks.tables import header, read_rows, read_table
from fieldscope.eval.types import QueryMeta

FILES = ("lingo.csv", "lingo.txt")

_COLUMNS = ("query_text", "query_id")


def with_lingo(
    meta: Mapping[str, QueryMeta], queries: Sequence[Query], folder: Path
) -> tuple[dict[str, QueryMeta], tuple[str, ...]]:
    """The queries' groups with what the list in this folder says of each, and sentences about what is odd in it; the
    groups as they are where there is no list. Raises `BenchmarkError` for a list that can't be read."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return dict(meta), ()
    listed = {_plain(line) for line in _lines(path)}
    on_list = {query.id for query in queries if {_plain(query.id), _plain(query.text)} & listed}
    marked = {query_id: replace(own, lingo=query_id in on_list) for query_id, own in meta.items()}
    odd = f"{path} names none of the queries; write their texts or ids, one a line"
    return marked, () if on_list else (odd,)


def _lines(path: Path) -> Iterator[str]:
    """The queries that a list names, in either of its forms."""
    columns = header(next(read_rows(path), (1, [""]))[1]) if path.suffix == ".csv" else []
    if not set(_COLUMNS).isdisjoint(columns):
        for _, values in read_table(path, (), _COLUMNS):
            yield from filter(None, values)
    else:
        yield from (line for _, (line,) in read_rows(path, None))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()

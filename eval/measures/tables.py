"""Runs as tables, for pandas, spreadsheets and whatever else reads Parquet or CSV.

`rankings` has a row per query and image, `verdicts` one per question about an image, `metrics` one per query. Rows of
several runs stand below each other and say in `run` whose they are.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from fieldscope.agent.types import RerankResult
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replacing
from fieldscope.core.spreadsheet import cell
from fieldscope.eval.measures.scoring import METRICS
from fieldscope.eval.runs.read import names_of, read_results
from fieldscope.eval.runs.scored import ScoredRun, read_scored

Format = Literal["parquet", "csv"]
Row = dict[str, Any]
Write = Callable[[Sequence[Row]], int]

_TEXT, _WHOLE, _NUMBER, _TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_WHOSE = (("run", _TEXT), ("strategy", _TEXT), ("query_id", _TEXT), ("query", _TEXT))

RANKINGS = pa.schema(
    [
        *_WHOSE, ("image_id", _TEXT), ("rank", _WHOLE), ("prior_rank", _WHOLE), ("score", _NUMBER), ("prior", _NUMBER),
        ("p_match", _NUMBER), ("rank_low", _WHOLE), ("rank_high", _WHOLE), ("relevant", _WHOLE),
    ]
)  # fmt: skip
VERDICTS = pa.schema(
    [
        *_WHOSE, ("image_id", _TEXT), ("predicate", _TEXT), ("kind", _TEXT), ("question", _TEXT), ("expected", _TEXT),
        ("state", _TEXT), ("p_yes", _NUMBER), ("p_expected", _NUMBER), ("answer", _TEXT), ("joint", _TRUTH),
        ("error", _TEXT), ("prompt_tokens", _WHOLE), ("completion_tokens", _WHOLE), ("latency", _NUMBER),
        ("cached", _TRUTH), ("request_key", _TEXT), ("look", _TEXT), ("relevant", _WHOLE),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A finished run, as rows."""

    run: ScoredRun

    @cached_property
    def results(self) -> dict[str, RerankResult]:
        """The results of the queries that the run was scored on."""
        results = read_results(self.run.folder)
        return {query: results[query] for query in self.run.requests}

    def rankings(self) -> Iterator[Row]:
        """A row per query and image, best first: ranks, scores, P(match), and the judgment (0 where there is none)."""
        for result in self.results.values():
            judged = self.run.judgments.get(result.query_id, {})
            for ranked in result.ranking:
                fields = ranked.model_dump(include=set(RANKINGS.names))
                yield {**self._whose(result), **fields, "relevant": judged.get(ranked.image_id, 0)}

    def verdicts(self) -> Iterator[Row]:
        """A row per question about an image, whatever became of it, with the judgment on the image."""
        for result in self.results.values():
            judged = self.run.judgments.get(result.query_id, {})
            asked = {predicate.id: predicate for predicate in result.predicates}
            for verdict in result.verdicts:
                fields = verdict.model_dump(include=set(VERDICTS.names))
                about = asked.get(verdict.predicate)
                question = about.model_dump(include={"kind", "question", "expected"}) if about else {}
                shown = {"look": verdict.look.shows if verdict.look else None}
                truth = {**shown, "relevant": judged.get(verdict.image_id, 0)}
                yield {**self._whose(result), **fields, **question, **truth}

    def metrics(self) -> Iterator[Row]:
        """A row per query: its groups, what it cost, and its metrics, empty where it has nothing to find."""
        for result in self.results.values():
            query = result.query_id
            usage = Usage.of(result.asked)
            yield {
                **self._whose(result),
                "benchmark": self.run.benchmark[0],
                "split": self.run.benchmark[1],
                **self.run.groups.get(query, {}),
                "positives": sum(grade > 0 for grade in self.run.judgments.get(query, {}).values()),
                "calls": usage.calls,
                "unknown": usage.unknown,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "ended": result.ended,
                **self.run.values.get(query, {}),
                **{name: values.get(query) for name, values in self.run.nothing.items()},
            }

    def _whose(self, result: RerankResult) -> Row:
        strategy = self.run.strategy
        return {"run": self.run.name, "strategy": strategy, "query_id": result.query_id, "query": result.query_text}


def read_exported(folders: Sequence[Path]) -> list[Exported]:
    """Finished runs, each under a name that tells it from the others. Raises `ConfigError`."""
    return [Exported(read_scored(folder, name)) for folder, name in zip(folders, names_of(folders), strict=True)]


def export_rankings(runs: Sequence[Exported], path: Path, kind: Format) -> int:
    """Write the rankings of all runs and give the number of rows. Raises `ConfigError` where the disk refuses."""
    return _write(path, kind, RANKINGS, (run.rankings() for run in runs))


def export_all(runs: Sequence[Exported], folder: Path, kind: Format) -> dict[Path, int]:
    """Write `rankings`, `verdicts` and `metrics` into a folder, in the place of older ones, and give the files with
    their numbers of rows. Raises `ConfigError` where the disk refuses."""
    tables = (
        ("rankings", RANKINGS, Exported.rankings),
        ("verdicts", VERDICTS, Exported.verdicts),
        ("metrics", _metrics_schema(runs), Exported.metrics),
    )
    return {
        (path := folder / f"{name}.{kind}"): _write(path, kind, schema, map(rows, runs))
        for name, schema, rows in tables
    }


def _metrics_schema(runs: Sequence[Exported]) -> pa.Schema:
    """The columns that any of the runs has."""
    groups = dict.fromkeys(kind for run in runs for own in run.run.groups.values() for kind in own)
    found = {name for run in runs for values in (*run.run.values.values(), run.run.nothing) for name in values}
    metrics = [name for name in METRICS if name in found] + sorted(found - METRICS.keys())
    return pa.schema(
        [
            *_WHOSE,
            *((name, _TEXT) for name in ("benchmark", "split", *groups)),
            *((name, _WHOLE) for name in ("positives", "calls", "unknown", "prompt_tokens", "completion_tokens")),
            ("ended", _TEXT),
            *((name, _NUMBER) for name in metrics),
        ]
    )


def _write(path: Path, kind: Format, schema: pa.Schema, runs: Iterable[Iterable[Row]]) -> int:
    """Write the rows of one run after the other, or leave the file as it was."""
    count = 0
    try:
        with replacing(path) as partial, (_parquet if kind == "parquet" else _csv)(partial, schema) as write:
            for rows in runs:
                count += write(list(rows))
    except OSError as error:
        raise ConfigError(f"can't write {path} ({error.strerror or error}); choose another path") from error
    return count


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with pq.ParquetWriter(path, schema) as writer:

        def write(rows: Sequence[Row]) -> int:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            return len(rows)

        yield write


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(schema.names)

        def write(rows: Sequence[Row]) -> int:
            writer.writerows([cell(row.get(name)) for name in schema.names] for row in rows)
            return len(rows)

        yield write

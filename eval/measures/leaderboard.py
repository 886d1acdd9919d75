"""Runs in tables with the rankings that others published on the same benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fieldscope.agent.roles import model_text
from fieldscope.eval.measures.file_order import WHOLE
from fieldscope.eval.reported import shared
from fieldscope.eval.runs.scored import ScoredRun

Measure = Literal["AP@50", "AP@100"]
"""What a table is sorted by. `AP@100` is over the whole list of a rerank benchmark's candidates."""

WHOLE_LIST: Measure = "AP@100"

_TOLERANCE = 1.0
"""So many points may the order of a benchmark's files be from what was published for it, and twice as many in one
supercategory: the published figures are rounded, and "not exactly the latest"."""

_FILE = Path(__file__).with_name("leaderboard.yaml")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedRow(_Record):
    """A ranking that others published: AP (of its table's measure), overall and by supercategory, and nDCG in percent,
    MRR from 0 to 1. `source` is its own where the table's does not hold for it."""

    name: str
    ap: float = Field(ge=0, le=100)
    ndcg: float | None = Field(default=None, ge=0, le=100)
    mrr: float | None = Field(default=None, ge=0, le=1)
    groups: Mapping[str, float] = Field(default_factory=dict)
    source: str = ""


class PublishedTable(_Record):
    """Rankings that were published together.

    They are means over so many `queries`, each with so many `candidates`; both are None where a run can't be checked
    for being over the same images. `file_order` is what was published for the model that scored the candidates in the
    benchmark's files: AP@50 in percent, over all queries and by supercategory. A file whose scores give other figures
    has other candidates or judgments.
    """

    benchmark: str
    split: str
    measure: Measure
    queries: int | None = Field(default=None, ge=1)
    candidates: int | None = Field(default=None, ge=1)
    file_order: Mapping[str, float] = Field(default_factory=dict)
    source: str = ""
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class Row:
    """A ranking on a board: means over queries from 0 to 1. `ap` is of the board's measure, `groups` the same by
    supercategory; `ndcg` and `mrr` are over the best 100, None where they were not published. `calls` is None for a
    ranking that was published."""

    name: str
    ap: float
    ndcg: float | None
    mrr: float | None
    source: str
    calls: int | None = None
    groups: Mapping[str, float] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Whether others made it."""
        return self.calls is None


@dataclass(frozen=True)
class Board:
    """Rankings of one benchmark and split by one measure, the best first, and what a reader must know of them.

    `foreign` says that nothing here is comparable with the boards of one's own runs: all of it was published, on
    another benchmark or split, or over queries and candidates that no run here has all of.
    """

    benchmark: str
    split: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    foreign: bool = False
    measure: Measure = WHOLE_LIST


def boards(runs: Sequence[ScoredRun]) -> list[Board]:
    """A board for each benchmark, split and measure. Published rows stand beside the runs over the same queries and
    candidates, or where there are none on a board of their own. Other runs are on a board apart, which says why."""
    own: dict[tuple[str, str], list[ScoredRun]] = {}
    for run in runs:
        own.setdefault(run.benchmark, []).append(run)
    beside: list[Board] = []
    placed: set[int] = set()
    for (benchmark, split), group in own.items():
        tables = [table for table in published() if _key(table.benchmark, table.split) == _key(benchmark, split)]
        reasons = [next(filter(None, (_apart(run, table) for table in tables)), None) for run in group]
        comparable = [run for run, reason in zip(group, reasons, strict=True) if reason is None]
        alone = [run for run, reason in zip(group, reasons, strict=True) if reason is not None]
        if comparable:
            placed.update(map(id, tables))
            for measure in dict.fromkeys((WHOLE_LIST, *(table.measure for table in tables))):
                rows = [_ours(run, measure) for run in comparable]
                rows += [row for table in tables if table.measure == measure for row in _theirs(table)]
                beside.append(Board(benchmark, split, _best_first(rows), _notes(comparable), measure=measure))
        if alone:
            notes = (*filter(None, reasons), *_notes(alone))
            measure = WHOLE_LIST if shared(run.reported for run in alone).headline == WHOLE_LIST else "AP@50"
            rows = [_ours(run, measure) for run in alone]
            beside.append(Board(benchmark, split, _best_first(rows), notes, measure=measure))
    return [*beside, *_foreign(own, placed)]


def _foreign(own: Mapping[tuple[str, str], Sequence[ScoredRun]], placed: set[int]) -> Iterator[Board]:
    """The published tables that no run stands beside."""
    ours = ", ".join(f"{benchmark} ({split})" for benchmark, split in own)
    tried = {_key(*benchmark) for benchmark in own}
    for table in published():
        if id(table) not in placed:
            same = _key(table.benchmark, table.split) in tried
            what = "other queries or candidates" if same else "another benchmark or split"
            note = f"published rows of {what}: not comparable with runs over {ours}"
            rows = _best_first(_theirs(table))
            yield Board(table.benchmark, table.split, rows, (note,), foreign=True, measure=table.measure)


def _apart(run: ScoredRun, table: PublishedTable) -> str | None:
    """Why a run does not stand beside a published table of its benchmark and split; None where it may."""
    start = f"{run.name} is not comparable with the published rows"
    if table.queries is None or table.candidates is None:
        return f"{start}: they are over a whole collection, and a run does not record which images it searched"
    if len(run.values) != table.queries:
        return f"{start}: it has {len(run.values)} of {table.queries} queries"
    sizes = sorted({len(run.judgments.get(query, {})) for query in run.values})
    if sizes != [table.candidates]:
        own = " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
        return f"{start}: they are over {table.candidates} candidates for each query, and it has {own}"
    if not run.file_order:
        return (
            f"{start}: it does not record how its files' clip_score ranks the candidates, as runs of earlier versions "
            "do not. Rerun its `fieldscope eval` command, which adds that without asking the model"
        )
    for group, figure in table.file_order.items():
        own_figure = 100 * run.file_order.get(group, 0.0)
        if abs(own_figure - figure) > _TOLERANCE * (1 if group == WHOLE else 2):
            of = "" if group == WHOLE else f" of {group}"
            return (
                f"{start}: the clip_score in its files has an AP@50{of} of {own_figure:.1f}, and {figure:.1f} is "
                "published for the model that gave these scores, so its candidates or judgments are other ones"
            )
    return None


@cache
def published() -> tuple[PublishedTable, ...]:
    """Every table in `leaderboard.yaml`."""
    return TypeAdapter(tuple[PublishedTable, ...]).validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def _theirs(table: PublishedTable) -> Iterator[Row]:
    for row in table.rows:
        ndcg = None if row.ndcg is None else row.ndcg / 100
        groups = {group: ap / 100 for group, ap in row.groups.items()}
        yield Row(row.name, row.ap / 100, ndcg, row.mrr, row.source or table.source, groups=groups)


def _ours(run: ScoredRun, measure: Measure) -> Row:
    model = f" asking {model_text(run.lmm)}" if run.lmm else ""
    ties = ", with ties as in INQUIRE's scripts" if run.official else ""
    source = f"own run {run.folder}{model}, {len(run.values)} queries{ties}"
    ap = run.mean(measure)
    groups: dict[str, list[float]] = {}
    for query, values in run.values.items():
        if group := run.groups.get(query, {}).get("supercategory"):
            groups.setdefault(group, []).append(values[measure])
    return Row(
        name=run.name,
        ap=ap,
        ndcg=run.mean("nDCG@100"),
        mrr=run.mean("RR"),
        source=source,
        calls=run.spent.calls,
        groups={group: sum(values) / len(values) for group, values in sorted(groups.items())},
    )


def _best_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: -row.ap))


def _notes(runs: Sequence[ScoredRun]) -> tuple[str, ...]:
    notes = []
    if len({run.task for run in runs}) > 1 or len({frozenset(run.values) for run in runs}) > 1:
        notes.append("these runs are not over the same queries and judgments, so their figures are not comparable")
    for run in runs:
        if run.scored_on_test > 1:
            notes.append(f"{run.name} was scored on test {run.scored_on_test} times")
    return tuple(notes)


def _key(benchmark: str, split: str) -> tuple[str, str]:
    """A benchmark's name, however it is spelled, and its split."""
    return re.sub(r"[^a-z0-9]", "", benchmark.casefold()), split

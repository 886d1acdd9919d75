"""Runs in one table with the rankings that others published on the same benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fieldscope.agent.roles import model_text
from fieldscope.eval.runs.scored import ScoredRun

_FILE = Path(__file__).with_name("leaderboard.yaml")


class Published(BaseModel):
    """A ranking that others published: AP and nDCG in percent, MRR from 0 to 1, and where the figures come from.

    They are means over so many `queries`, each with so many `candidates`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    split: str
    queries: int = Field(ge=1)
    candidates: int = Field(ge=1)
    name: str
    ap: float = Field(ge=0, le=100)
    ndcg: float = Field(ge=0, le=100)
    mrr: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)


@dataclass(frozen=True)
class Row:
    """A ranking on a board: means over queries from 0 to 1, AP and nDCG over the best 100. `calls` is None where it was
    published."""

    name: str
    ap: float
    ndcg: float
    mrr: float
    source: str
    calls: int | None = None

    @property
    def published(self) -> bool:
        """Whether others made it."""
        return self.calls is None


@dataclass(frozen=True)
class Board:
    """Rankings of one benchmark and split, the best AP first, and what a reader must know of them.

    `foreign` says that nothing here is comparable with the boards of one's own runs: all of it was published, on
    another benchmark or split, or over queries and candidates that no run here has all of.
    """

    benchmark: str
    split: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    foreign: bool = False


def boards(runs: Sequence[ScoredRun]) -> list[Board]:
    """A board for each benchmark and split of the runs. What was published stands beside the runs over the same queries
    and candidates, or where there are none on a board of its own. Other runs are on a board apart, which says why."""
    own: dict[tuple[str, str], list[ScoredRun]] = {}
    for run in runs:
        own.setdefault(run.benchmark, []).append(run)
    known: dict[tuple[str, str], list[Published]] = {}
    for row in published():
        known.setdefault((_plain(row.benchmark), row.split), []).append(row)
    found, placed = [], set()
    for (benchmark, split), group in own.items():
        key = _plain(benchmark), split
        reasons = [_apart(run, known.get(key, ())) for run in group]
        beside = [run for run, reason in zip(group, reasons, strict=True) if reason is None]
        alone = [run for run, reason in zip(group, reasons, strict=True) if reason is not None]
        if beside:
            placed.add(key)
            rows = [*map(_ours, beside), *map(_theirs, known.get(key, ()))]
            found.append(Board(benchmark, split, _best_first(rows), _notes(beside)))
        if alone:
            notes = (*filter(None, reasons), *_notes(alone))
            found.append(Board(benchmark, split, _best_first(map(_ours, alone)), notes))
    tried = {(_plain(benchmark), split) for benchmark, split in own}
    ours = ", ".join(f"{benchmark} ({split})" for benchmark, split in own)
    for key, theirs in known.items():
        if key not in placed:
            what = "other queries or candidates" if key in tried else "another benchmark or split"
            note = f"published rows of {what}: not comparable with runs over {ours}"
            found.append(Board(theirs[0].benchmark, theirs[0].split, _best_first(map(_theirs, theirs)), (note,), True))
    return found


def _apart(run: ScoredRun, theirs: Iterable[Published]) -> str | None:
    """Why a run does not stand beside what was published on its benchmark and split; None where it may."""
    sizes = sorted({len(run.judgments.get(query, {})) for query in run.values})
    for row in theirs:
        if len(run.values) != row.queries:
            return (
                f"{run.name} is not comparable with the published rows: it has {len(run.values)} of {row.queries} "
                "queries"
            )
        if sizes != [row.candidates]:
            return (
                f"{run.name} is not comparable with the published rows: they are over {row.candidates} candidates for "
                "each "
                f"query, and it has {' to '.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))}"
            )
    return None


@cache
def published() -> tuple[Published, ...]:
    """Every ranking in `leaderboard.yaml`."""
    return TypeAdapter(tuple[Published, ...]).validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def _theirs(row: Published) -> Row:
    return Row(row.name, row.ap / 100, row.ndcg / 100, row.mrr, row.source)


def _ours(run: ScoredRun) -> Row:
    model = f" asking {model_text(run.lmm)}" if run.lmm else ""
    source = f"own run {run.folder}{model}, {len(run.values)} queries"
    return Row(run.name, run.mean("AP@100"), run.mean("nDCG@100"), run.mean("RR"), source, run.spent.calls)


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


def _plain(benchmark: str) -> str:
    """A benchmark's name, however it is spelled."""
    return re.sub(r"[^a-z0-9]", "", benchmark.casefold())

"""One's own runs in one table with what others published on the same benchmark, and never with anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from eval.scored import ScoredRun

_FILE = Path(__file__).with_name("published.yaml")


class Published(BaseModel):
    """A ranking that others published: AP and nDCG in percent, MRR from 0 to 1, and where the figures come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    split: str
    name: str
    ap: float = Field(ge=0, le=100)
    ndcg: float = Field(ge=0, le=100)
    mrr: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)


@dataclass(frozen=True)
class Row:
    """A ranking on a board: means over queries from 0 to 1, AP and nDCG over the best 100. `calls` is None where it was
    published, and nobody told."""

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
    """One benchmark and split: its rankings, the best AP first, and what a reader must know of them.

    `foreign` says that nothing here is comparable with the boards of one's own runs: all of it was published, on
    another benchmark or split.
    """

    benchmark: str
    split: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    foreign: bool = False


def boards(runs: Sequence[ScoredRun]) -> list[Board]:
    """A board for each benchmark and split of the runs. What was published stands on the board of its own benchmark and
    split, or where there is none on one that says so."""
    own: dict[tuple[str, str], list[ScoredRun]] = {}
    for run in runs:
        own.setdefault(run.benchmark, []).append(run)
    known: dict[tuple[str, str], list[Published]] = {}
    for row in published():
        known.setdefault((row.benchmark, row.split), []).append(row)
    found = []
    placed = set()
    for (benchmark, split), group in own.items():
        matching = [key for key in known if (_plain(key[0]), key[1]) == (_plain(benchmark), split)]
        placed.update(matching)
        theirs = [_theirs(row) for key in matching for row in known[key]]
        found.append(Board(benchmark, split, _best_first([*map(_ours, group), *theirs]), _notes(group)))
    ours = ", ".join(f"{benchmark} ({split})" for benchmark, split in own)
    for (benchmark, split), rows in known.items():
        if (benchmark, split) not in placed:
            note = f"published rows of another benchmark or split: not comparable with runs over {ours}"
            found.append(Board(benchmark, split, _best_first(map(_theirs, rows)), (note,), foreign=True))
    return found


@cache
def published() -> tuple[Published, ...]:
    """Every ranking in `published.yaml`."""
    return TypeAdapter(tuple[Published, ...]).validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def _theirs(row: Published) -> Row:
    return Row(row.name, row.ap / 100, row.ndcg / 100, row.mrr, row.source)


def _ours(run: ScoredRun) -> Row:
    model = f" asking {run.lmm}" if run.lmm else ""
    source = f"own run {run.folder}{model}, {len(run.values)} queries"
    return Row(run.name, run.mean("AP@100"), run.mean("nDCG@100"), run.mean("RR"), source, run.spent.calls)


def _best_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: -row.ap))


def _notes(runs: Sequence[ScoredRun]) -> tuple[str, ...]:
    notes = []
    if len({run.task for run in runs}) > 1 or len({frozenset(run.values) for run in runs}) > 1:
        notes.append("these runs are not over the same queries and judgments, so their figures do not compare")
    for run in runs:
        if (times := _scored_on_test(run)) > 1:
            notes.append(f"{run.name} was scored on test {times} times")
    return tuple(notes)


def _scored_on_test(run: ScoredRun) -> int:
    return int(json.loads((run.folder / "manifest.json").read_bytes()).get("scored_on_test", 0))


def _plain(benchmark: str) -> str:
    """A benchmark's name, however it is spelled."""
    return re.sub(r"[^a-z0-9]", "", benchmark.casefold())

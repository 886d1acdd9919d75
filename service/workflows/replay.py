"""Replays: recorded runs in the place of a benchmark's files, a first stage, pictures and a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.service.wiring.benchmarks import Workload


def open_recording(source: Path, settings: Settings) -> Recording:
    """A file of `fieldscope cache export`, or a run's folder or output folder with its answers in the response cache.

    Raises `CacheError` and `ConfigError` for what is none.
    """
    from fieldscope.cache.archive import Archive
    from fieldscope.cache.sqlite import SqliteStore
    from fieldscope.cache.store import MemoryStore
    from fieldscope.eval.runs.recording import read_recording, recorded_lines
    from fieldscope.eval.runs.replay import make_recording

    if source.is_dir():
        path = settings.store_path
        with closing(SqliteStore(path) if path.exists() else MemoryStore()) as store:
            return make_recording(recorded_lines([source], store))
    if not source.exists():
        raise ConfigError(f"{source} does not exist; give a file of `fieldscope cache export`, or a run's folder")
    return make_recording(read_recording(Archive(source)))


def recorded_workload(recording: Recording) -> Workload:
    """The recorded benchmark, with the recording in the place of everything else."""
    from fieldscope.service.wiring.benchmarks import Workload

    return Workload(recording.benchmark, recording.searches, recording.encoder, recording=recording)


def chosen_strategies(recording: Recording | None, names: Sequence[str], otherwise: Sequence[str]) -> list[Strategy]:
    """Strategies by name or file. In a recording a run's name is that run's strategy, and no name is all of them;
    elsewhere it is `otherwise`.

    Raises `ConfigError` where one is unknown, or two have the same name.
    """
    from fieldscope.service.workflows.evaluate import load_strategies

    if recording is None:
        return load_strategies(names or otherwise)
    recorded = {run.strategy.name: run.strategy for run in recording.runs}
    if not names:
        if len(recorded) < len(recording.runs):
            raise ConfigError("two recorded runs have strategies of one name; export them apart")
        return list(recorded.values())
    loaded = iter(load_strategies([name for name in names if name not in recorded]))
    chosen = [recorded[name] if name in recorded else next(loaded) for name in dict.fromkeys(names)]
    if len({strategy.name for strategy in chosen}) < len(chosen):
        raise ConfigError("a strategy has the name of a recorded one; give it its own, it names the run's folder")
    return chosen


def require_no_models(asked: Sequence[Settings]) -> None:
    """Raise `ConfigError` where a grid would have several models answer."""
    if any(settings.lmm_url for settings in asked):
        raise ConfigError("a recording has one model's answers; leave 'model' out of the grid")


def recorded_limit(recording: Recording) -> int | None:
    """How many queries a replay goes through, None for all; says so where those are not all."""
    queries, every = recording.queries, len(recording.benchmark.queries)
    if not queries:
        raise ConfigError("the recorded runs have not finished the first query; finish them, and export them again")
    if queries < every:
        note(f"the recording has the first {queries:,} of {every:,} queries")
    return queries if queries < every else None


def recorded_budgets(recording: Recording, query: Budget, run: Budget) -> tuple[Budget, Budget]:
    """The budgets of a query and of a run: those of the recorded runs, where the user names none."""
    from fieldscope.agent.budget import Budget

    given = any(budget != Budget() for budget in (query, run))
    return (query, run) if given else (recording.budget_of("query"), recording.budget_of("run"))


def replay_folder(name: str) -> Path:
    """Where replays go: apart from the runs that they repeat. A recording's names are no paths."""
    return Path("runs") / "replayed" / (re.sub(r"[^\w.+-]+", "-", name).lstrip(".-") or "benchmark")

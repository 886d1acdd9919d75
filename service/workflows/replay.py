"""Replays: recorded runs in the place of a benchmark's files, a first stage, pictures and a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.console import note
from fieldscope.service.cli.spaced import SpacedCommand
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.service.workflows.evaluate import Workload

OPTION = "--replay"

replay_option = click.option(
    OPTION,
    "replay",
    metavar="[FILE|RUN]",
    help="Ask nothing, load no model. Answers come from a file of `fieldscope cache export`, or from the response "
    "cache: for a run's folder, or for BENCHMARK itself. A file or run brings benchmark and strategies with it.",
)


class ReplayableCommand(SpacedCommand):
    """A command whose `--replay` goes alone or with a file or folder, which then stands for the argument, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _joined(args))

    def wanted(self, args: Sequence[str]) -> int:
        recorded = any(arg.startswith(f"{OPTION}=") and arg != f"{OPTION}=" for arg in args)
        return 0 if recorded else sum(isinstance(p, click.Argument) for p in self.params)


def _joined(args: Sequence[str]) -> list[str]:
    """`--replay FILE` as `--replay=FILE`, and `--replay` alone as `--replay=`."""
    line: list[str] = []
    for arg in args:
        if line and line[-1] == OPTION:
            names_source = not arg.startswith("-") and _may_be_recorded(arg)
            line[-1] = f"{OPTION}={arg if names_source else ''}"
            if names_source:
                continue
        line.append(arg)
    return [f"{OPTION}=" if arg == OPTION else arg for arg in line]


def _may_be_recorded(name: str) -> bool:
    """Whether what stands after `--replay` is meant for it, and is no benchmark's name or path."""
    from fieldscope.cache.archive import looks_like_archive
    from fieldscope.service.workflows.evaluate import HUB, NAMES

    path = Path(name)
    if name in (*NAMES, HUB):
        return False
    if path.is_dir():
        return any(path.glob("manifest.json")) or any(path.glob("*/manifest.json"))
    return looks_like_archive(path) or not path.exists()


def replayed(settings: Settings, replay: str | None) -> Settings:
    """The settings of a command with `--replay`. Raises `UsageError` where others contradict it."""
    if replay is None:
        return settings
    if settings.cache_mode not in ("on", "replay"):
        raise click.UsageError(f"{OPTION} asks nothing; it goes without --cache {settings.cache_mode}")
    if replay and (settings.lmm_url or settings.clip):
        raise click.UsageError(f"{OPTION} {replay} has its own models; leave --lmm and --clip out")
    return replace(settings, cache_mode="replay")


def open_recorded(
    source: Path, benchmark: str | None, split: str | None, dry_run: bool, settings: Settings
) -> Recording:
    """The recording that a command line names. Raises `UsageError` for what goes with a benchmark's files only."""
    if benchmark is not None:
        raise click.UsageError(f"{OPTION} {source} brings its own benchmark; leave {benchmark!r} out")
    if dry_run:
        raise click.UsageError(f"{OPTION} asks nothing, so there is nothing that --dry-run could tell")
    recording = open_recording(source, settings)
    if split not in (None, recording.benchmark.split):
        raise click.UsageError(f"{source} has the split {recording.benchmark.split!r}; leave --split out")
    return recording


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
    from fieldscope.service.workflows.evaluate import Workload

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

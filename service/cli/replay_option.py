"""`--replay`: recorded runs instead of models, images and a benchmark's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.eval.runs.replay import Recording

OPTION = "--replay"


replay_option = click.option(
    OPTION,
    "replay",
    metavar="[FILE|RUN]",
    help="Use recorded answers instead of a model: from a file of `fieldscope cache export`, or from the response "
    "cache for a run's folder or for BENCHMARK. A file or run brings its benchmark and strategies with it.",
)


class ReplayableCommand(SpacedCommand):
    """A command whose `--replay` is given alone, or with a file or folder that also takes the argument's place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _joined(args))

    def required(self, args: Sequence[str]) -> int:
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
    """Whether the word after `--replay` belongs to it, and is no benchmark's name or path."""
    from fieldscope.cache.archive import looks_like_archive
    from fieldscope.eval.runs.read import runs_in
    from fieldscope.service.wiring.benchmarks import BENCHMARKS

    path = Path(name)
    if BENCHMARKS.split(name)[0]:
        return False
    if path.is_dir():
        return bool(runs_in(path))
    return looks_like_archive(path) or not path.exists()


def replayed(settings: Settings, replay: str | None) -> Settings:
    """The settings of a command with `--replay`. Raises `UsageError` where others contradict it."""
    if replay is None:
        return settings
    if settings.cache_mode not in ("on", "replay"):
        raise click.UsageError(f"{OPTION} asks no model; leave --cache {settings.cache_mode} out")
    if replay and (settings.lmm_url or settings.roles or settings.encoder or settings.scorer):
        raise click.UsageError(f"{OPTION} {replay} has its own models; leave --lmm, --encoder and --scorer out")
    return replace(settings, cache_mode="replay")


def open_recorded(
    source: Path, benchmark: str | None, split: str | None, dry_run: bool, settings: Settings
) -> Recording:
    """The recording that a command line names. Raises `UsageError` for what goes with a benchmark's files only."""
    if benchmark is not None:
        raise click.UsageError(f"{OPTION} {source} has its own benchmark; leave {benchmark!r} out")
    if dry_run:
        raise click.UsageError(f"{OPTION} asks no model, so there is nothing to estimate; leave --dry-run out")
    from fieldscope.service.workflows.replay import open_recording

    recording = open_recording(source, settings)
    if split not in (None, recording.benchmark.split):
        raise click.UsageError(f"{source} has the split {recording.benchmark.split!r}; leave --split out")
    return recording

"""How often a strategy was scored on a test split: a ledger in the user's cache folder that is only ever added to.

Scoring a strategy on test, changing it and scoring it again fits it to the test split, a little more each time. A
program can't forbid that, but it can count, so that a reader of a table sees it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fieldscope.core.errors import ConfigError
from fieldscope.core.paths import cache_folder
from fieldscope.eval.tuning.calibrate import SELECTION_SPLITS
from fieldscope.eval.types import RunSummary


class _Scoring(BaseModel):
    """One run that was scored on test. `run` is the id in its manifest: a run that was taken up again is the same.
    `encoder` is the fingerprint of the first stage. Earlier versions did not record it, and their runs count under
    every first stage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    benchmark: str
    strategy: str
    run: str
    encoder: str | None = None


class Ledger:
    """The ledger in `path`, by default the user's own. It is a file of JSON lines, made with its first entry.

    Several processes may write at once. Raises `ConfigError` where the file can't be read or written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "scored-on-test.jsonl"

    def score(self, benchmark: str, split: str, strategy: str, run: str, encoder: str | None = None) -> int:
        """On how many test runs a strategy (its fingerprint) was scored on a benchmark after this first stage (the
        encoder's fingerprint, where there is one), this one included.

        A run on a split that may decide a setting is not counted; on any other, also one without a name, it is.
        """
        scoring = _Scoring(benchmark=benchmark, strategy=strategy, run=run, encoder=encoder)
        try:
            return self._read(scoring) if split in SELECTION_SPLITS else self._add(scoring)
        except OSError as error:
            raise ConfigError(
                f"can't record the test score in {self.path} ({error.strerror}). Make the file writable, or name "
                "another "
                "cache folder in FIELDSCOPE_CACHE, then rerun this command; nothing is lost."
            ) from error

    def _read(self, scoring: _Scoring) -> int:
        try:
            return len(_runs(self.path.read_bytes(), scoring))
        except FileNotFoundError:
            return 0

    def _add(self, scoring: _Scoring) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            runs = _runs(content, scoring)
            if scoring.run not in runs:
                # A line that a kill cut off is closed, and counts for nothing.
                start = "" if not content or content.endswith(b"\n") else "\n"
                file.write(f"{start}{scoring.model_dump_json(exclude_none=True)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            return len(runs | {scoring.run})


def scored_notes(summaries: Iterable[RunSummary]) -> list[str]:
    """A line for each run whose strategy was scored on test more than once."""
    return [
        f"{summary.strategy} was scored on {summary.benchmark}'s test split {summary.scored_on_test} times. Choose "
        "settings on a validation split; what is chosen by test scores is fitted to them."
        for summary in summaries
        if summary.scored_on_test > 1
    ]


def _runs(content: bytes, wanted: _Scoring) -> set[str]:
    """The ids of the runs that scored the wanted strategy on the wanted benchmark, after the same first stage."""
    runs = set()
    for line in content.splitlines():
        with suppress(ValidationError):
            found = _Scoring.model_validate_json(line)
            same = (found.benchmark, found.strategy) == (wanted.benchmark, wanted.strategy)
            if same and found.encoder in (None, wanted.encoder):
                runs.add(found.run)
    return runs

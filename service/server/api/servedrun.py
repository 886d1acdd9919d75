"""Results of served calls as a run folder, which the viewer opens like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.roles import ModelIdentity
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.private import private_file, private_folder
from fieldscope.eval.runs.jsonlines import JsonLines
from fieldscope.eval.runs.runfolder import describe_served_run

LARGEST = 32_000_000
"""Bytes of results in one folder. A page of the viewer reads all of them after a change."""


@dataclass(frozen=True)
class Setting:
    """Everything besides a call that determines its ranking: strategy, model (its identity, or that of the model of
    each role), first stage (the encoder's fingerprint) and calibration."""

    strategy: Strategy
    lmm: ModelIdentity | None = None
    encoder: str | None = None
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """The name of its folder, unique within a day."""
        calibration = self.calibration and self.calibration.model_dump(mode="json")
        parts = [self.strategy.fingerprint, self.lmm, self.encoder, calibration]
        return f"{self.strategy.name[:100]}-{fingerprint(parts)[:8]}"


class ServedRun:
    """One folder with the results of one day and one setting; each call adds a line to `results.jsonl`.

    `locator` says where the images are, as `Collection.locator` does. If a folder is full, or another process writes
    it, the results go to a folder with the next number. Raises `ConfigError` if no folder can be written.
    """

    def __init__(self, day: Path, setting: Setting, locator: Mapping[str, Any] | None) -> None:
        for number in count(1):
            self.path = day / (setting.name if number == 1 else f"{setting.name}-{number}")
            if self._open():
                break
        try:
            describe_served_run(
                self.path,
                setting.strategy,
                setting.calibration,
                {"lmm": setting.lmm, "encoder": setting.encoder},
                locator,
            )
        except ConfigError:
            self.close()
            raise

    @property
    def full(self) -> bool:
        return self.size >= LARGEST

    def append(self, lines: Sequence[str]) -> list[tuple[int, int]]:
        """Write lines to `results.jsonl`, and return each one's offset and length in bytes."""
        self._results.append(lines)
        places = []
        for line in lines:
            size = len(line.encode()) + 1
            places.append((self.size, size))
            self.size += size
        return places

    def close(self) -> None:
        self._results.close()

    def _open(self) -> bool:
        """Open the folder, unless it is full or another process writes it."""
        file = self.path / "results.jsonl"
        try:
            private_folder(self.path)
            if file.exists() and file.stat().st_size >= LARGEST:
                return False
        except OSError as error:
            raise ConfigError(
                f"can't make the folder {self.path}: {error.strerror}; check its permissions and the free space"
            ) from error
        try:
            with suppress(OSError):  # opening the file reports the error
                private_file(file)
            self._results = JsonLines(file)
        except ConfigError:
            if os.access(file, os.W_OK):  # locked, not forbidden
                return False
            raise
        self._results.recover()
        self.size = file.stat().st_size
        return True

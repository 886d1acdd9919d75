"""The runs below a folder, read as they are: finished, half-written, damaged, or of another version."""

from __future__ import annotations

import glob
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from fieldscope.core.errors import ConfigError
from fieldscope.eval.runs.notes import NAME as NOTES
from fieldscope.eval.runs.read import FILES, is_run, read_manifest
from fieldscope.eval.runs.runfolder import SERVED
from fieldscope.eval.runs.searches import NAME as SEARCH_FILE
from fieldscope.eval.runs.searches import SearchFolder
from fieldscope.service.viewer.addresses import slug
from fieldscope.service.viewer.runs.run import Run, open_run

_DEEPEST = 4  # folders below the first one
_OPEN = 64  # runs in memory


class RunList:
    """The runs below `root`, which may be a run's folder itself. A run's key is its path below `root`, as a slug.

    `images` is the folder of the images if it is not where the runs say, `store` the response cache. Raises
    `ConfigError` if `root` is no folder.
    """

    def __init__(self, root: Path, images: Path | None = None, store: Path | None = None) -> None:
        if not root.is_dir():
            raise ConfigError(f"{str(root)!r} is no folder. Give the folder that `fieldscope eval` wrote.")
        self.root = root
        self.images = images
        self.store = store
        self._open: OrderedDict[str, tuple[tuple[object, ...], Run]] = OrderedDict()

    def folders(self) -> dict[str, Path]:
        """Key -> folder of every run, in order of their paths."""
        return {slug(self._name(folder)): folder for folder in sorted(self._below(self.root, 0))}

    def run(self, key: str) -> Run | None:
        """The run with this key, read again if its files have changed; None if there is none."""
        folder = self.folders().get(key)
        return None if folder is None else self._read(key, folder)

    def runs(self) -> list[Run]:
        """Every run, in order of their paths."""
        return [self._read(key, folder) for key, folder in self.folders().items()]

    def _read(self, key: str, folder: Path) -> Run:
        """A run as its files are now; an unchanged run is not opened again."""
        now = stamp(folder)
        known = self._open.get(key)
        if known is None or known[0] != now:
            known = (now, open_run(key, _shown_name(folder) or self._name(folder), folder, self.images, self.store))
            self._open[key] = known
        self._open.move_to_end(key)
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return known[1]

    def _name(self, folder: Path) -> str:
        return folder.name if folder == self.root else folder.relative_to(self.root).as_posix()

    def _below(self, folder: Path, depth: int) -> Iterator[Path]:
        if is_run(folder):
            yield folder
        elif depth < _DEEPEST:
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield from self._below(folder / entry.name, depth + 1)


def _shown_name(folder: Path) -> str | None:
    """The name that a person gave a kept search, and strategy and day of calls that a service answered; None for other
    runs."""
    try:
        if (folder / SEARCH_FILE).is_file():
            return SearchFolder(folder).record.name
        setup = read_manifest(folder).setup
    except (ConfigError, ValidationError):
        return None
    if setup.benchmark.name != SERVED:
        return None
    # A day has several folders of a strategy where its model or its settings changed.
    alike = sorted(folder.parent.glob(f"{glob.escape(setup.strategy.name)}-*"))
    number = f" ({alike.index(folder) + 1})" if folder in alike[1:] else ""
    return f"{setup.strategy.name}, {folder.parent.name}{number}"


def stamp(folder: Path) -> tuple[object, ...]:
    """A value that changes with a run's files. Editing or copying can set a file's time of modification, but not the
    time of its last change (`st_ctime`)."""
    stamps: list[object] = []
    for name in (*FILES, SEARCH_FILE, NOTES):
        try:
            status = (folder / name).stat()
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        except OSError:
            stamps.append(None)
    return tuple(stamps)

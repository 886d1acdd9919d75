"""Every file below a folder, once, and why files that are not images are skipped."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fieldscope.core.errors import ConfigError
from fieldscope.retrieval.formats import SUFFIXES, why_no_picture


def walk(root: Path) -> Iterator[tuple[PurePosixPath, str | None]]:
    """Every file below `root`, with the reason where it is skipped. Hidden folders, and links to folders that are not
    followed, are listed by name only."""
    pending = deque([(PurePosixPath(), root)])
    listed: dict[Path, PurePosixPath] = {}
    links: deque[tuple[PurePosixPath, Path]] = deque()
    while pending or links:
        # Links come last, so that a folder goes by its own name where it has one.
        below, folder = pending.popleft() if pending else links.popleft()
        if folder in listed:
            yield below, f"a link to the folder {str(listed[folder])!r}, whose images are listed there"
            continue
        listed[folder] = below
        for entry in _entries(folder):
            relative, path = below / entry.name, folder / entry.name
            if is_hidden(relative):
                yield relative, "hidden, as its name begins with a dot"
            elif entry.is_dir(follow_symlinks=False):
                pending.append((relative, path))
            elif not _is_folder(path):
                yield relative, why_skipped(relative, path, root)
            elif _is_inside(path, root):
                links.append((relative, path.resolve()))
            else:
                yield relative, "a link to a folder outside of this one; index that folder itself, or copy it here"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(
            f"can't list {str(error.filename)!r} ({error.strerror}); make it readable or move it away"
        ) from error


def is_hidden(relative: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in relative.parts)  # `..` is among them


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link to where nothing may be looked at
        return False


def _is_inside(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def why_skipped(relative: PurePosixPath, path: Path, root: Path) -> str | None:
    """Why a file is not an image; None for one that has an image's name or begins like an image."""
    if relative.suffix.lower() in SUFFIXES:
        return None
    return why_no_picture(path) if _is_inside(path, root) else "a link to a file outside of this folder; copy it here"

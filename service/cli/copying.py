"""Copying what was found into a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldscope.core.errors import ConfigError


def copy_all(files: Iterable[Path], folder: Path) -> list[Path]:
    """Copy files into `folder`, made where it is missing, and give the copies' paths.

    Nothing is ever overwritten: a name that is taken gets a number. Raises `ConfigError` where the disk refuses; what
    was copied until then stays.
    """
    copies = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            copies.append(_copy(file, folder))
    except OSError as error:
        raise ConfigError(
            f"can't copy to {folder} ({error.strerror or error}) after {len(copies)} files; choose another folder, or "
            "make room"
        ) from error
    return copies


def _copy(file: Path, folder: Path) -> Path:
    with file.open("rb") as source:
        for name in _names(file):
            target = folder / name
            try:
                stream = target.open("xb")
            except FileExistsError:
                continue
            try:
                with stream:
                    shutil.copyfileobj(source, stream)
                shutil.copystat(file, target)
            except OSError:
                target.unlink()  # half a picture
                raise
            return target
    raise ConfigError(f"{folder} has too many files named {file.name}; choose another folder")


def _names(file: Path) -> Iterator[str]:
    yield file.name
    yield from (f"{file.stem}-{number}{file.suffix}" for number in range(1, 100_000))

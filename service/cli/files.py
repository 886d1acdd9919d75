"""Files that a command writes where the user wants them: reports, tables, and copies of images."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file


def write_text(file: Path, text: str) -> None:
    """Write a whole file, or leave the old one as it was; its folder is made where it is missing. Raises
    `ConfigError`."""
    try:
        replace_file(file, text)
    except OSError as error:
        raise ConfigError(f"can't write {file} ({error.strerror or error}); choose another file") from error


def copy_all(files: Iterable[Path], folder: Path) -> list[Path]:
    """Copy files into `folder`, which is made where it is missing, and return the paths of the copies.

    Nothing is overwritten: a name that is taken gets a number. Raises `ConfigError` where the disk refuses; the files
    copied until then stay.
    """
    copies = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            copies.append(_copy(file, folder))
    except OSError as error:
        raise ConfigError(
            f"can't copy to {folder} ({error.strerror or error}) after {len(copies)} files; choose another folder, or "
            "free some disk space"
        ) from error
    return copies


def link_all(files: Iterable[Path], folder: Path) -> list[Path]:
    """The same with symbolic links in place of copies."""
    links = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            links.append(_link(file, folder))
    except OSError as error:
        raise ConfigError(
            f"can't write links to {folder} ({error.strerror or error}) after {len(links)} files; choose another folder"
        ) from error
    return links


def _link(file: Path, folder: Path) -> Path:
    for name in _names(file):
        try:
            (folder / name).symlink_to(file.resolve())
        except FileExistsError:
            continue
        return folder / name
    raise ConfigError(f"{folder} has too many files named {file.name}; choose another folder")


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

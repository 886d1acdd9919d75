"""Files that a command writes where the user wants them: reports, tables, and copies of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
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
    return _placed(files, folder, _copy, "copy to")


def link_all(files: Iterable[Path], folder: Path) -> list[Path]:
    """The same with symbolic links in place of copies."""
    return _placed(files, folder, lambda file, target: target.symlink_to(file.resolve()), "write links to")


def _placed(files: Iterable[Path], folder: Path, place: Callable[[Path, Path], None], what: str) -> list[Path]:
    """Place each file in `folder` under a name that is free, and return the paths there. `place` raises
    `FileExistsError` for a name that is taken."""
    placed: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            placed.append(_under_free_name(file, folder, place))
    except OSError as error:
        raise ConfigError(
            f"can't {what} {folder} ({error.strerror or error}) after {len(placed)} files; choose another folder, or "
            "free some disk space"
        ) from error
    return placed


def _under_free_name(file: Path, folder: Path, place: Callable[[Path, Path], None]) -> Path:
    for name in _names(file):
        try:
            place(file, folder / name)
        except FileExistsError:
            continue
        return folder / name
    raise ConfigError(f"{folder} has too many files named {file.name}; choose another folder")


def _copy(file: Path, target: Path) -> None:
    with file.open("rb") as source:
        stream = target.open("xb")
        try:
            with stream:
                shutil.copyfileobj(source, stream)
            shutil.copystat(file, target)
        except OSError:
            target.unlink()  # half a picture
            raise


def _names(file: Path) -> Iterator[str]:
    yield file.name
    yield from (f"{file.stem}-{number}{file.suffix}" for number in range(1, 100_000))

"""The files of a data set: found in any of its layouts, read strictly, and refused in a line that names the field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.reading import file_bytes

T = TypeVar("T")

_SHOWN = 5  # ids that a message names


class Entry(BaseModel):
    """A record of a published file. Types are as they are written there; keys that nothing needs are not read, so that
    what they say can reach no prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """A JSON file. Raises `BenchmarkError` with one line that names the file, the entry (from 1) and the field."""
    try:
        return kind.validate_json(file_bytes(path))
    except OSError as error:
        raise BenchmarkError(f"{path} can't be read ({error.strerror}). Check the file.") from error
    except ValidationError as error:
        raise fault(path, error) from error


def fault(path: Path, error: ValidationError, where: str = "", remedy: str = "Fetch the file again.") -> BenchmarkError:
    """What is wrong with a file, by its first fault."""
    first: dict[str, Any] = dict(error.errors(include_url=False)[0])
    place = list(first["loc"])
    if not where and place and isinstance(place[0], int):
        where = f"entry {place.pop(0) + 1}"
    field = ".".join(map(str, place))
    what = f"missing key {field!r}" if first["type"] == "missing" else f"{field}: {first['msg']}".removeprefix(": ")
    return BenchmarkError(f"{path}{', ' if where else ''}{where}: {' '.join(what.split())}. {remedy}")


def base_folder(root: Path, names: Sequence[str], wanted: Sequence[str]) -> Path:
    """The folder that has any of the `wanted` files: `root`, or the folder of one of these `names` in it. Raises
    `BenchmarkError` where none has."""
    if not root.is_dir():
        raise BenchmarkError(f"{root} is not a folder. Give the data set's folder with --data.")
    for folder in (root, *(root / name for name in names)):
        if any((folder / file).exists() for file in wanted):
            return folder
    raise BenchmarkError(f"{root} has none of {', '.join(wanted)}. Give the data set's folder with --data.")


def first_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that is there. Raises `BenchmarkError` where none is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BenchmarkError(f"{folder} has none of {', '.join(names)}. Fetch the file.")


def relative_path(path: Path, name: str) -> str:
    """A path that a file names, below the data set's folder. Raises `BenchmarkError` for one that leads elsewhere."""
    plain = PurePosixPath(name)
    if not name or plain.is_absolute() or ".." in plain.parts or "\0" in name:
        raise BenchmarkError(f"{path} names the image file {name!r}, which is not below its folder. Correct the file.")
    return plain.as_posix()


@dataclass(frozen=True)
class Pictures:
    """Image id -> its file, and the ids of images without one."""

    files: Mapping[str, Path]
    missing: tuple[str, ...]

    def require(self, root: Path, references: Iterable[str | None], looked: str) -> tuple[str, ...]:
        """Sentences about what is missing. Raises `BenchmarkError` where no image is there, or a query's reference
        image is not; `looked` says where they were expected."""
        if not self.files:
            raise BenchmarkError(
                f"none of the {len(self.missing):,} images is in {root} (expected: {looked}). Add them."
            )
        absent = set(self.missing)
        if needed := [image for image in dict.fromkeys(references) if image in absent]:
            raise BenchmarkError(
                f"{len(needed):,} reference images have no file in {root}: {_some(needed)} (expected: {looked}). Add "
                "them."
            )
        if not self.missing:
            return ()
        total = len(self.files) + len(self.missing)
        return (
            f"{len(self.missing):,} of {total:,} images have no file in {root}: {_some(self.missing)}; they can't be "
            "found, so the figures are not those of the whole gallery",
        )


def find_pictures(folder: Path, ids: Iterable[str], places: Callable[[str], Iterable[str]]) -> Pictures:
    """The file of each image: the first that is there of the `places`, relative to the folder, that an id may have."""
    files: dict[str, Path] = {}
    missing: list[str] = []
    for image_id in dict.fromkeys(ids):
        found = next((path for place in places(image_id) if (path := folder / place).is_file()), None)
        if found is None:
            missing.append(image_id)
        else:
            files[image_id] = found
    return Pictures(files, tuple(missing))


def _some(ids: Sequence[str | None]) -> str:
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(str, ids[:_SHOWN])) + more

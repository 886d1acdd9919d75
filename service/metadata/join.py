"""The rows of a table joined to images by file name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from fieldscope.core.errors import ConfigError
from fieldscope.service.metadata.table import LISTED, Table

_TRIED = 300  # rows by which the column of file names is found
_FOLDERS = "relativepath"  # Timelapse has folders in a column of their own


@dataclass(frozen=True)
class Joined:
    """The cells of each image by column; several rows of an image are one, with the distinct values of each column.

    `column` has the file names. `unmatched` are the file names without an image, `ambiguous` those that could be of
    several images, or of one image with other rows whose folders differ.
    """

    column: str
    images: Mapping[str, Mapping[str, str]]
    unmatched: Sequence[str] = ()
    ambiguous: Sequence[str] = ()


class FileNames:
    """Images by the ways in which a table may write their file names: with folders or without, with other slashes, in
    another case, without the ending, as an address. `root` is the folder of all of them."""

    def __init__(self, ids: Sequence[str], root: str = "") -> None:
        self.ids = ids
        self._parts: dict[str, tuple[str, ...]] = {}
        self._whole = {_parts(image_id): image_id for image_id in ids}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image_id in ids:
            path = PurePosixPath(root, image_id)
            self._parts[image_id] = _parts(path.as_posix())
            for name in {path.name.casefold(), path.stem.casefold()}:
                self._by_name[name].append(image_id)

    def find(self, written: str) -> list[str]:
        """The images that a file name can mean: the one with this id, else those whose paths end alike: none, one, or
        several that it does not tell apart."""
        parts = _parts(written)
        if parts in self._whole:
            return [self._whole[parts]]
        matches = self._by_name.get(parts[-1], []) if parts else []
        alike = {image_id: self.alike(written, image_id) for image_id in matches}
        return [image_id for image_id, parts in alike.items() if parts == max(alike.values())]

    def alike(self, written: str, image_id: str) -> int:
        """How many folders above the file a file name and an image's path have in common."""
        pairs = zip(reversed(_parts(written)[:-1]), reversed(self._parts[image_id][:-1]), strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), len(_parts(written)) - 1)


def join(table: Table, ids: Sequence[str], root: str = "") -> Joined:
    """The table's rows by image. The column of file names is the one with most images' names in it.

    Raises `ConfigError` where no column has any.
    """
    names = FileNames(ids, root)
    column, folder = _column(table, names)
    rows: dict[str, dict[str, list[Mapping[str, str]]]] = defaultdict(lambda: defaultdict(list))
    unmatched: list[str] = []
    ambiguous: list[str] = []
    for row in table.rows:
        for written in _written(row, column, folder):
            matches = names.find(written)
            if len(matches) == 1:
                rows[matches[0]]["/".join(_parts(written))].append(row)
            else:
                (ambiguous if matches else unmatched).append(written)
    images: dict[str, dict[str, str]] = {}
    for image_id, by_name in rows.items():
        alike = {written: names.alike(written, image_id) for written in by_name}
        best = [written for written, parts in alike.items() if parts == max(alike.values())]
        if len(best) > 1:
            ambiguous += best
        else:
            images[image_id] = _merged(by_name[best[0]])
    return Joined(column, images, unmatched, ambiguous)


def _column(table: Table, names: FileNames) -> tuple[str, str | None]:
    """The column of file names, and the column of the folders that they lie in, where that is another one."""
    sample = table.rows[:: max(len(table.rows) // _TRIED, 1)]
    folders = next((column for column in table.columns if column.casefold() == _FOLDERS), None)
    choices = [(column, folders if column != folders else None) for column in table.columns]

    def matched(choice: tuple[str, str | None]) -> int:
        return sum(any(names.find(written) for written in _written(row, *choice)) for row in sample)

    best = max(choices, key=matched)
    if not matched(best):
        first = next(iter(names.ids), "")
        raise ConfigError(
            f"{table.source} has no column with the file names of these images, such as {first!r}; add one"
        )
    return best


def _written(row: Mapping[str, str], column: str, folder: str | None) -> list[str]:
    """The file names in a row."""
    written = [part.strip() for part in row.get(column, "").split(LISTED.strip()) if part.strip()]
    return [f"{row[folder]}/{name}" for name in written] if folder is not None and folder in row else written


def _parts(written: str) -> tuple[str, ...]:
    """A path's parts, whatever its slashes and case, and those of an address's path."""
    path = unquote(urlsplit(written).path) if "://" in written else written.replace("\\", "/")
    return tuple(part.casefold() for part in path.split("/") if part not in ("", "."))


def _merged(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: LISTED.join(dict.fromkeys(row[column] for row in rows if column in row)) for column in columns}

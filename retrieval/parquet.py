"""An image collection over Parquet files, such as a data set's shards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fieldscope.core.errors import BrokenImageError, ConfigError, first_line
from fieldscope.retrieval.collection import DecodingCollection, file_stamp
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits
from fieldscope.retrieval.lru import ByteLru

_ROW_GROUP_BYTES = 512_000_000
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]+)?\.parquet", re.IGNORECASE)
_MOST_NAMED = 1000
_SMALLEST_PICTURE = 100  # bytes on average, below which rows without any may be among them


class _Cell(NamedTuple):
    path: Path
    group: int
    row: int


@dataclass(frozen=True)
class Faults:
    """Ids of images without bytes, and ids that rows give to several pictures, of which the first counts."""

    without_bytes: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()


class ParquetCollection(DecodingCollection):
    """The images of Parquet files: file contents as plain bytes or as Hugging Face's struct {bytes, path}, of which the
    path is never followed. An id is a row's `id_column` as text; of rows with one id the first counts.

    Row groups are read one at a time, and only a few are kept. `beside` are the files that were found beside them and
    are no images. Raises `ConfigError` for files of another shape.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_column: str = "image",
        id_column: str = "inat24_image_id",
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        beside: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(limits)
        self._beside = beside or {}
        self.paths = [path.resolve() for path in paths]
        self.image_column = image_column
        self.id_column = id_column
        self._groups: ByteLru[pa.ChunkedArray] = ByteLru(_ROW_GROUP_BYTES)
        self._cells: dict[str, _Cell] = {}
        self._repeated: dict[str, list[_Cell]] = {}
        for path in self.paths:
            self._list(path)

    def _list(self, path: Path) -> None:
        with _reading(path), pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow, self.image_column, self.id_column)
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=[self.id_column])[self.id_column].cast(pa.string())
                if ids.null_count:
                    raise ConfigError(f"{str(path)!r} has rows without {self.id_column!r}; give every image an id")
                for row, image_id in enumerate(ids.to_pylist()):
                    cell = _Cell(path, group, row)
                    if self._cells.setdefault(image_id, cell) is not cell:
                        self._repeated.setdefault(image_id, []).append(cell)

    def ids(self) -> Sequence[str]:
        return tuple(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def skipped(self) -> Mapping[str, str]:
        """Files beside the tables that are no images, parts of the data set that are missing, and the ids of which only
        the first picture counts."""
        others = {name: why for name, why in self._beside.items() if Path(name).suffix != ".parquet"}
        ambiguous = self.faults().ambiguous if self._repeated else ()
        return {
            **others,
            **dict.fromkeys(missing_parts(self.paths), "this part of the data set is missing; fetch it"),
            **dict.fromkeys(ambiguous, "several pictures have this id, and only the first is used; give each its own"),
        }

    def faults(self) -> Faults:
        """Faults of the images, without decoding one. Raises `ConfigError` for files that can't be read."""
        without: list[str] = []
        digests: dict[str, set[bytes]] = {image_id: set() for image_id in self._repeated}
        rows: dict[Path, dict[int, dict[int, str]]] = {path: {} for path in self.paths}
        for image_id, cell in self._cells.items():
            for path, group, row in (cell, *self._repeated.get(image_id, ())):
                rows[path].setdefault(group, {})[row] = image_id
        for path, groups in rows.items():
            with _reading(path), pq.ParquetFile(path) as file:
                for group, names in groups.items():
                    repeated = not digests.keys().isdisjoint(names.values())
                    if not (repeated or _may_lack_bytes(file.metadata.row_group(group), self.image_column)):
                        continue
                    images = _bytes_of(file.read_row_group(group, columns=[self.image_column])[self.image_column])
                    for row, image_id in names.items():
                        data = images[row].as_buffer()
                        if not data and self._cells[image_id] == (path, group, row):
                            without.append(image_id)
                        elif data and image_id in digests:
                            digests[image_id].add(hashlib.sha256(data).digest())
        return Faults(tuple(without), tuple(image_id for image_id, images in digests.items() if len(images) > 1))

    def stamp(self, image_id: str) -> str:
        cell = self._cell(image_id)
        return f"{file_stamp(cell.path)}:{cell.group}:{cell.row}"

    def locator(self) -> dict[str, Any]:
        return {
            "kind": "parquet",
            "paths": [str(path) for path in self.paths],
            "image_column": self.image_column,
            "id_column": self.id_column,
        }

    def _cell(self, image_id: str) -> _Cell:
        if image_id not in self._cells:
            raise BrokenImageError(f"{image_id!r} is none of the {len(self)} images of {self._title}; check the id")
        return self._cells[image_id]

    @property
    def _title(self) -> str:
        return repr(str(self.paths[0])) + (f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else "")

    def _stored(self, image_id: str) -> bytes:
        cell = self._cell(image_id)
        try:
            value = self._row_group(cell)[cell.row].as_py()
        except (OSError, IndexError, pa.ArrowException) as error:
            raise BrokenImageError(
                f"{image_id!r} can't be read from {str(cell.path)!r} ({first_line(error)}); check the file"
            ) from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise BrokenImageError(
                f"{image_id!r} has no bytes in {str(cell.path)!r}; store the images in the file itself"
            )
        return bytes(data)

    def _row_group(self, cell: _Cell) -> pa.ChunkedArray:
        key = (cell.path, cell.group)
        images = self._groups.get(key)
        if images is None:
            with pq.ParquetFile(cell.path) as file:
                images = file.read_row_group(cell.group, columns=[self.image_column])[self.image_column]
            self._groups.put(key, images, images.nbytes)
        return images


def missing_parts(paths: Sequence[Path]) -> list[str]:
    """The names of files that are missing among these, by the numbers in their own names:
    `test-00000-of-00003.parquet` has two others beside it. At most 1,000 are named."""
    numbers_of: dict[tuple[str, str], set[int]] = {}
    for path in paths:
        if part := _PART.fullmatch(path.name):
            numbers_of.setdefault((part["stem"], part["total"]), set()).add(int(part["number"]))
    names = (
        f"{stem}-{number:0{len(total)}}-of-{total}.parquet"
        for (stem, total), numbers in numbers_of.items()
        for number in range(int(total))
        if number not in numbers
    )
    return list(islice(names, _MOST_NAMED))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{str(path)!r} can't be read as Parquet ({first_line(error)}); check the file") from error


def _may_lack_bytes(group: pq.RowGroupMetaData, column: str) -> bool:
    """Whether some rows may hold no image: by the file's statistics, which need no image to be read."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema in (column, f"{column}.bytes"):
            known = chunk.statistics is not None and chunk.statistics.has_null_count
            small = chunk.total_uncompressed_size < _SMALLEST_PICTURE * chunk.num_values
            return not known or chunk.statistics.null_count > 0 or small
    return True


def _bytes_of(images: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images


def _check_schema(path: Path, schema: pa.Schema, image_column: str, id_column: str) -> None:
    for column in (image_column, id_column):
        if column not in schema.names:
            raise ConfigError(
                f"{str(path)!r} has no column {column!r}, only {', '.join(schema.names)}; name the right one"
            )
    kind = schema.field(image_column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ConfigError(
            f"column {image_column!r} of {str(path)!r} holds {kind}, not images as bytes; name the right one"
        )
    kind = schema.field(id_column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ConfigError(
            f"column {id_column!r} of {str(path)!r} holds {kind}, not whole numbers or text; name the right one"
        )

"""An image collection over Parquet files, such as a data set's shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage

from core.errors import BrokenImageError, ConfigError
from retrieval.collection import DecodingCollection, file_stamp
from retrieval.images import DEFAULT_LIMITS, ImageLimits, open_image
from retrieval.lru import ByteLru

_ROW_GROUP_BYTES = 512_000_000


class _Cell(NamedTuple):
    path: Path
    group: int
    row: int


class ParquetCollection(DecodingCollection):
    """The images of Parquet files: file contents as plain bytes or as Hugging Face's struct {bytes, path}, of which the
    path is never followed. An id is a row's `id_column` as text; of rows with one id the first counts.

    Row groups are read one at a time, and only a few are kept. Raises `ConfigError` for files of another shape.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_column: str = "image",
        id_column: str = "inat24_image_id",
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(limits)
        self.paths = [path.resolve() for path in paths]
        self.image_column = image_column
        self.id_column = id_column
        self._groups: ByteLru[pa.ChunkedArray] = ByteLru(_ROW_GROUP_BYTES)
        self._cells: dict[str, _Cell] = {}
        for path in self.paths:
            self._list(path)

    def _list(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path) as file:
                _check_schema(path, file.schema_arrow, self.image_column, self.id_column)
                for group in range(file.num_row_groups):
                    ids = file.read_row_group(group, columns=[self.id_column])[self.id_column].cast(pa.string())
                    if ids.null_count:
                        raise ConfigError(f"{str(path)!r} has rows without {self.id_column!r}; every image needs an id")
                    for row, image_id in enumerate(ids.to_pylist()):
                        self._cells.setdefault(image_id, _Cell(path, group, row))
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"{str(path)!r} can't be read as Parquet ({_first_line(error)}); check the file"
            ) from error

    def ids(self) -> Sequence[str]:
        return tuple(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

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
            raise BrokenImageError(f"{image_id!r} is none of the {len(self)} images of {self._title}")
        return self._cells[image_id]

    @property
    def _title(self) -> str:
        return repr(str(self.paths[0])) + (f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else "")

    def _open(self, image_id: str) -> PILImage.Image:
        cell = self._cell(image_id)
        try:
            value = self._row_group(cell)[cell.row].as_py()
        except (OSError, IndexError, pa.ArrowException) as error:
            raise BrokenImageError(
                f"{image_id!r} can't be read from {str(cell.path)!r} ({_first_line(error)}); check the file"
            ) from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise BrokenImageError(
                f"{image_id!r} has no bytes in {str(cell.path)!r}; store the images in the file itself"
            )
        return open_image(data, self.limits, name=image_id)

    def _row_group(self, cell: _Cell) -> pa.ChunkedArray:
        key = (cell.path, cell.group)
        images = self._groups.get(key)
        if images is None:
            with pq.ParquetFile(cell.path) as file:
                images = file.read_row_group(cell.group, columns=[self.image_column])[self.image_column]
            self._groups.put(key, images, images.nbytes)
        return images


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
        raise ConfigError(f"column {id_column!r} of {str(path)!r} holds {kind}, not whole numbers or text")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]

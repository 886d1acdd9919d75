"""The metadata of a collection, gathered from a table and from the images themselves, and kept beside the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from fieldscope.core.errors import ConfigError, ImageError
from fieldscope.core.files import replace_file
from fieldscope.core.reading import file_bytes
from fieldscope.retrieval.collection import DecodingCollection
from fieldscope.retrieval.manifest import writing
from fieldscope.retrieval.perceptual_hash import perceptual_hash
from fieldscope.service.metadata.exif import read_exif
from fieldscope.service.metadata.groups import grouped
from fieldscope.service.metadata.join import Joined, join
from fieldscope.service.metadata.records import Records, merged
from fieldscope.service.metadata.table import Table, read_table

if TYPE_CHECKING:
    from fieldscope.retrieval.collection import Collection
    from fieldscope.retrieval.progress import Report

NAME = "metadata.json"
"""The file in the folder of an index."""

_FORMAT = 1


class _Picture(BaseModel):
    """What an image itself tells, as of its stamp: time and place from EXIF, and the perceptual hash in hexadecimal,
    empty where it has none, and None where it was not computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: str
    cells: dict[str, str]
    hash: str | None = None


class _Stored(BaseModel):
    """The content of the file. `source` is the table's own file, None without a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    source: str | None = None
    columns: tuple[str, ...] = ()
    decimal_comma: bool = False
    table: dict[str, dict[str, str]] = {}
    pictures: dict[str, _Picture] = {}
    groups: tuple[tuple[str, ...], ...] = ()

    def records(self) -> Records:
        """What the table says of each image, and the camera."""
        exif = {image_id: picture.cells for image_id, picture in self.pictures.items()}
        joined = merged(Records(self.columns, self.table, self.decimal_comma), exif)
        return replace(joined, groups=self.groups)


@dataclass(frozen=True)
class Gathered:
    """The records of a collection, and sentences about the table: how many images have a row, and which rows name no
    image."""

    records: Records
    notes: Sequence[str] = ()


def gather(
    collection: Collection, table: Path | None = None, folder: Path | None = None, report: Report | None = None
) -> Gathered:
    """The records of a collection's images: the rows of `table`, and time and place from EXIF.

    With the `folder` of an index near duplicates and bursts are grouped, too, and all is kept there, so that only
    changed images are read again. Without a table, the one that was given before is read again; where it is gone, its
    rows stay. Raises `ConfigError` as `require_rows` does.
    """
    earlier = _read(folder) if folder is not None else _Stored()
    pictures = _read_pictures(collection, earlier.pictures, report or (lambda *_: None), hashed=folder is not None)
    again = table is None and earlier.source is not None and Path(earlier.source).is_file()
    source = Path(earlier.source) if again and earlier.source else table
    stored = earlier.model_copy(update={"pictures": pictures})
    notes: list[str] = []
    if source is not None:
        opened = read_table(source)
        joined = join(opened, collection.ids(), _root(collection))
        stored = _Stored(
            source=str(source.resolve()),
            columns=opened.columns,
            decimal_comma=opened.decimal_comma,
            table={image_id: dict(cells) for image_id, cells in joined.images.items()},
            pictures=pictures,
        )
        notes = _notes(opened, joined, len(collection))
    stored = stored.model_copy(update={"groups": _groups(stored)})
    if folder is not None:
        with writing(folder):
            replace_file(folder / NAME, stored.model_dump_json())
    return Gathered(stored.records(), notes)


def require_rows(collection: Collection, table: Path) -> None:
    """Raise `ConfigError`, before anything that takes long, for a table that can't be read, or that names none of the
    images."""
    join(read_table(table), collection.ids(), _root(collection))


def read_records(folder: Path) -> Records:
    """The records beside the index in `folder`; none where it has none. Raises `ConfigError` for a damaged file."""
    return _read(folder).records()


def write_records(folder: Path, records: Records) -> None:
    """Keep records in a folder that is no index, such as that of a search; `read_records` reads them. Raises
    `ConfigError`."""
    table = {image_id: dict(cells) for image_id, cells in records.images.items()}
    stored = _Stored(columns=records.columns, decimal_comma=records.decimal_comma, table=table, groups=records.groups)
    with writing(folder):
        replace_file(folder / NAME, stored.model_dump_json())


def _read(folder: Path) -> _Stored:
    path = folder / NAME
    if not path.exists():
        return _Stored()
    try:
        stored = _Stored.model_validate_json(file_bytes(path))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); check the file") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged; delete it, and index the images with --metadata again") from error
    if stored.format != _FORMAT:
        raise ConfigError(f"{path} is of another Fieldscope version; index the images with --metadata again")
    return stored


def _read_pictures(
    collection: Collection, earlier: Mapping[str, _Picture], report: Report, *, hashed: bool
) -> dict[str, _Picture]:
    pictures: dict[str, _Picture] = {}
    if not isinstance(collection, DecodingCollection):
        return pictures
    ids = collection.ids()
    for done, image_id in enumerate(ids, start=1):
        try:
            stamp = collection.stamp(image_id)
            known = earlier.get(image_id)
            if known is None or known.stamp != stamp or (hashed and known.hash is None):
                source = collection.stored(image_id)
                known = _Picture(
                    stamp=stamp, cells=read_exif(source), hash=_hexadecimal(perceptual_hash(source)) if hashed else None
                )
            pictures[image_id] = known
        except ImageError:
            continue  # the index names the image with the reason
        report(done, len(ids))
    return pictures


def _hexadecimal(value: int | None) -> str:
    return "" if value is None else f"{value:x}"


def _groups(stored: _Stored) -> tuple[tuple[str, ...], ...]:
    records = stored.records()
    hashes = {image_id: int(picture.hash, 16) for image_id, picture in stored.pictures.items() if picture.hash}
    spans = {image_id: records.time(image_id) for image_id in hashes}
    exact = {image_id: span.first for image_id, span in spans.items() if span and span.first == span.last}
    return grouped(hashes, exact)


def _root(collection: Collection) -> str:
    root = getattr(collection, "root", None)
    return root.as_posix() if isinstance(root, Path) else ""


def _notes(table: Table, joined: Joined, images: int) -> list[str]:
    name = table.source.name
    notes = [
        f"{name}: {len(joined.images):,} of {images:,} images have a row, by the file names in column "
        f"{joined.column!r}."
    ]
    if joined.unmatched:
        notes.append(
            f"{name}: {len(joined.unmatched):,} rows name no image of this collection, such as {joined.unmatched[0]!r}."
        )
    if joined.ambiguous:
        notes.append(
            f"{name}: {len(joined.ambiguous):,} file names fit several images or rows, such as "
            f"{joined.ambiguous[0]!r}, and were left out. Write them with their folders."
        )
    return notes

"""The metadata of a collection: the columns of a user's table and of the cameras, by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from fieldscope.service.metadata.exif import EXIF_COLUMNS, EXIF_LATITUDE, EXIF_LONGITUDE, EXIF_TIME
from fieldscope.service.metadata.spans import Span, read_span
from fieldscope.service.metadata.table import LISTED

_TIMES = ("eventdate", "datetimeoriginal", "datetime", "timestamp", "dateobserved", "observedon", "capturedate", "date")
_LATITUDES = ("decimallatitude", "latitude", "lat")
_LONGITUDES = ("decimallongitude", "longitude", "long", "lon", "lng")
_RANKS = ("kingdom", "phylum", "class", "order", "family", "subfamily", "genus", "species", "subspecies")
_TAXA = frozenset(
    {
        *("scientificname", "acceptednameusage", "vernacularname", "commonname", "taxon", "taxonname", "speciesname"),
        *("higherclassification", "specificepithet", *_RANKS),
    }
)
_ABSENT = frozenset({"NA", "N/A", "NaN", "NULL"})
"""What statistics programs write where there is no value; a text of a column of texts all the same."""


@dataclass(frozen=True)
class Records:
    """The cells of each image as texts, by column; what is empty is absent. A cell with several values has ` | `
    between them.

    `columns` has every column in its order. With `decimal_comma` a number may be written like 46,5. `groups` are near
    duplicates and bursts, by the images' ids.
    """

    columns: tuple[str, ...] = ()
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    decimal_comma: bool = False
    groups: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.images)

    def of(self, image_id: str) -> Mapping[str, str]:
        """An image's cells by column; empty for an image without any."""
        return self.images.get(image_id, {})

    def renamed(self, images: Mapping[str, str]) -> Records:
        """The records of these images under other ids: `images` has the id here of each new one."""
        here = {own: name for name, own in images.items()}
        groups = (tuple(here[own] for own in group if own in here) for group in self.groups)
        return replace(
            self,
            images={name: self.images[own] for name, own in images.items() if own in self.images},
            groups=tuple(group for group in groups if len(group) > 1),
        )

    def group(self, image_id: str) -> tuple[str, ...]:
        """The images that show the same as this one, itself among them; it alone where there are none."""
        return self._group_of.get(image_id, (image_id,))

    def number(self, text: str) -> float | None:
        """A cell's number; None where it is none."""
        try:
            return float(text.replace(",", ".") if self.decimal_comma and text.count(",") == 1 else text)
        except ValueError:
            return None

    def time(self, image_id: str) -> Span | None:
        """When the image was taken: by the table, or else by the camera."""
        cells = self.of(image_id)
        for column in self._named(_TIMES):
            if (span := read_span(cells.get(column, ""))) is not None:
                return self._with_time_of_day(cells, span)
        return self._of_parts(cells) or read_span(cells.get(EXIF_TIME, ""))

    def place(self, image_id: str) -> tuple[float, float] | None:
        """Latitude and longitude in decimal degrees: by the table, or else by the camera. None where they are missing
        or outside of the globe."""
        cells = self.of(image_id)
        for north, east in self._places:
            latitude, longitude = self.number(cells.get(north, "")), self.number(cells.get(east, ""))
            if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
                return latitude, longitude
        return None

    def taxa(self, image_id: str) -> Iterator[str]:
        """Every name of a taxon, of any rank and in any language, that the table has for the image."""
        cells = self.of(image_id)
        for column in self.taxon_columns:
            yield from values_of(cells.get(column, ""))

    @cached_property
    def taxon_columns(self) -> Sequence[str]:
        """The columns with names of taxa."""
        return [column for column in self.columns if _plain(column) in _TAXA]

    @cached_property
    def has_times(self) -> bool:
        """Whether it is known of any image when it was taken."""
        return any(self.time(image_id) is not None for image_id in self.images)

    @cached_property
    def has_places(self) -> bool:
        """Whether it is known of any image where it was taken."""
        return any(self.place(image_id) is not None for image_id in self.images)

    @cached_property
    def _group_of(self) -> dict[str, tuple[str, ...]]:
        return {image_id: group for group in self.groups for image_id in group}

    @cached_property
    def _by_plain(self) -> dict[str, str]:
        return {_plain(column): column for column in reversed(self.columns)}

    def _named(self, names: Sequence[str]) -> list[str]:
        return [self._by_plain[name] for name in names if name in self._by_plain]

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        north, east = self._named(_LATITUDES), self._named(_LONGITUDES)
        own = [(north[0], east[0])] if north and east else []
        return own + ([(EXIF_LATITUDE, EXIF_LONGITUDE)] if EXIF_LATITUDE in self.columns else [])

    def _with_time_of_day(self, cells: Mapping[str, str], span: Span) -> Span:
        """A day made exact by a column of times, as Darwin Core and Timelapse have one."""
        for column in self._named(("eventtime", "time")):
            exact = read_span(f"{span.first.date().isoformat()} {cells.get(column, '')}")
            if exact is not None and span.first.date() == span.last.date() and span.first != span.last:
                return exact
        return span

    def _of_parts(self, cells: Mapping[str, str]) -> Span | None:
        """A date in columns for year, month and day."""
        parts = [cells.get(column, "") for column in self._named(("year", "month", "day"))]
        return read_span("-".join(part.zfill(2) for part in parts if part))


def values_of(cell: str) -> list[str]:
    """The values of a cell, of which it may list several."""
    return [value for part in cell.split(LISTED.strip()) if (value := part.strip())]


def is_absent(value: str) -> bool:
    """Whether a value stands for none among numbers and dates."""
    return value in _ABSENT


def merged(table: Records, exif: Mapping[str, Mapping[str, str]]) -> Records:
    """A table's records with what the cameras wrote as further columns; a table's own column of that name stays."""
    own = [column for column in EXIF_COLUMNS if column not in table.columns]
    used = [column for column in own if any(column in cells for cells in exif.values())]
    images = {
        image_id: {
            **table.of(image_id),
            **{column: cell for column, cell in exif.get(image_id, {}).items() if column in used},
        }
        for image_id in dict.fromkeys((*table.images, *exif))
    }
    filled = {image_id: cells for image_id, cells in images.items() if cells}
    return Records((*table.columns, *used), filled, table.decimal_comma)


def _plain(column: str) -> str:
    """A column's name without case, spaces, and the namespace that Darwin Core may have before it."""
    name = column.rpartition(":")[2].rpartition("/")[2]
    return "".join(character for character in name.casefold() if character.isalnum())

"""The registered collections: opened once, and searchable if a CLIP is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.opening import open_collection, reopen_collection
from fieldscope.service.metadata.records import Records
from fieldscope.service.server.api.pictures import SCHEME, reference
from fieldscope.service.wiring.bundled import FOREIGN
from fieldscope.service.wiring.feedback import keeping, note, progress
from fieldscope.service.wiring.own_pictures import all_fieldnotes
from fieldscope.service.workflows.skipped import skipped_lines

if TYPE_CHECKING:
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.library import Library
    from fieldscope.service.metadata.filter import Filter
    from fieldscope.service.server.settings import ServerSettings

FIELDNOTES = "fieldnotes"
"""The name of FieldNotes' test collection, the default."""


@dataclass(frozen=True)
class ServedCollection:
    """A collection's images, and the library to search them (None without a CLIP). `flags` are warnings for every
    result over them, `records` is the images' metadata."""

    name: str
    images: Collection
    library: Library | None = None
    flags: tuple[str, ...] = ()
    records: Records = field(default_factory=Records)

    @cached_property
    def ids(self) -> frozenset[str]:
        """Every image's id, as of when the collection was opened."""
        return frozenset(self.images.ids())

    def reference(self, image_id: str) -> str:
        """The id, in a call, of one of its images."""
        return reference(self.name, image_id)

    def alike(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Each of these images that shows the same as others of them, with all of its group in this order."""
        there = set(ids)
        places = {image_id: place for place, image_id in enumerate(ids)}
        groups = {image_id: there.intersection(self.records.group(image_id)) for image_id in ids}
        return {one: sorted(group, key=places.__getitem__) for one, group in groups.items() if len(group) > 1}

    def satisfying(self, wanted: Filter) -> list[str]:
        """The searchable images that satisfy a filter. Raises `ConfigError` where there are none, or the filter does
        not fit the metadata."""
        ids = wanted.select(self.records, self.images.ids() if self.library is None else self.library.ids)
        if not ids:
            raise ConfigError(f"no image of {self.name!r} satisfies the filter ({wanted}); change a condition")
        return ids


def open_collections(settings: ServerSettings, encoder: Encoder | None) -> dict[str, ServedCollection]:
    """Every collection of the settings by its name, or FieldNotes' test collection; indexes are built on first use.

    Raises `ConfigError` for a folder without images, or an index of another CLIP.
    """
    if not settings.collections:
        from fieldscope.service.wiring.fieldnotes import open_fieldnotes, pictures

        if encoder is None:
            return {FIELDNOTES: ServedCollection(FIELDNOTES, pictures("test"))}
        return {FIELDNOTES: ServedCollection(FIELDNOTES, *open_fieldnotes("test", settings.models, encoder=encoder))}
    return {name: open_served(name, settings, encoder) for name in settings.collections}


def flagged(collection: ServedCollection) -> ServedCollection:
    """The collection with a warning if it has images that the bundled models were not trained for."""
    if all_fieldnotes(collection.images, collection.images.ids()):
        return collection
    return replace(collection, flags=(FOREIGN,))


def find_image(collections: Mapping[str, ServedCollection], text: str) -> tuple[ServedCollection, str] | None:
    """The collection, and the image's id in it, that `fieldscope://COLLECTION/ID` names; None if there is none."""
    scheme, (name, _, image_id) = text[: len(SCHEME)], text[len(SCHEME) :].partition("/")
    collection = collections.get(name) if scheme.lower() == SCHEME else None
    return (collection, image_id) if collection is not None and image_id in collection.ids else None


def open_served(name: str, settings: ServerSettings, encoder: Encoder | None) -> ServedCollection:
    """One of the collections of the settings, as its folder is now: new images of a folder are encoded, and its table
    of metadata is read again. Raises `ConfigError` as `open_collections` does."""
    from fieldscope.retrieval.library import build_index, open_library, read_skipped
    from fieldscope.retrieval.manifest import is_index, read_manifest

    folder, table = settings.collections[name], settings.metadata.get(name)
    if is_index(folder):
        if encoder is None:
            locator = read_manifest(folder).attributes.get("collection")
            images = reopen_collection(locator if isinstance(locator, dict) else {})
            return ServedCollection(name, images, records=_records(name, images, table, folder))
        try:
            library = open_library(folder, encoder)
        except IndexMismatchError as error:
            raise ConfigError(f"collection {name!r}: {error}") from error
        _note_skipped(name, read_skipped(folder))
        records = _records(name, library.collection, table, folder)
        return ServedCollection(name, library.collection, library, records=records)
    images = open_collection([folder])
    if encoder is None:
        _note_skipped(name, images.skipped())
        return ServedCollection(name, images, records=_records(name, images, table, None))
    place = f"{name}-{fingerprint(images.locator())[:16]}-{encoder.fingerprint[:16]}"
    index = settings.data_folder / "indexes" / place
    with keeping(f"vectors computed so far are kept in {index}"), progress(f"encoding {name}") as report:
        built = build_index(images, encoder, index, encoder_name=settings.encoder or "bundled", progress=report)
    _note_skipped(name, built.skipped)
    records = _records(name, images, table, index, own=True)
    return ServedCollection(name, images, open_library(index, encoder), records=records)


def _records(name: str, images: Collection, table: Path | None, folder: Path | None, own: bool = False) -> Records:
    """The metadata beside an index, or of images without one. It is gathered where a table is given, and for an index
    of the service's `own`."""
    from fieldscope.service.metadata.store import gather, read_records

    if folder is not None and table is None and not own:
        return read_records(folder)
    with progress(f"reading metadata of {name}") as report:
        gathered = gather(images, table, folder, report)
    for line in gathered.notes:
        note(f"collection {name!r}: {line}")
    return gathered.records


def _note_skipped(name: str, skipped: Mapping[str, str]) -> None:
    if lines := [line.strip() for line in skipped_lines(skipped)]:
        note(f"collection {name!r}: {lines[0]} {'; '.join(lines[1:])}")

"""The field `filter` of a request: conditions on the metadata of a collection's images, before anything is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from fieldscope.core.errors import ConfigError
from fieldscope.service.metadata.filter import Filter, read_filter
from fieldscope.service.server.api.calls import Document, ImageDocument
from fieldscope.service.server.api.collections import ServedCollection, find_image
from fieldscope.service.server.api.errors import ApiError

GivenFilter = Annotated[
    str | list[str] | dict[str, Any],
    Field(
        description="Only images whose metadata satisfies every condition are searched or ranked. A condition is a "
        "text such as `count >= 2`; an object maps columns to values, to lists of them, or to signs and values. "
        "`date`, `taxon` and `box` (west, south, east, north) need no column of that name.",
        examples=[{"station": ["A1", "B2"], "date": {">=": "2023-05"}, "box": [7.0, 46.0, 8.5, 47.0]}],
    ),
]


def wanted_filter(given: GivenFilter | None) -> Filter | None:
    """The filter of a body, None where it has none. Raises `ApiError` (422)."""
    if given is None:
        return None
    try:
        return read_filter(given)
    except ConfigError as error:
        raise _refused(error) from error


def require_satisfied(collection: ServedCollection, wanted: Filter | None) -> None:
    """Raise `ApiError` (422) for a filter that no image of the collection satisfies, or that does not fit its
    metadata."""
    if wanted is not None:
        _satisfying(collection, wanted)


def filtered(collection: ServedCollection, wanted: Filter | None) -> ServedCollection:
    """The collection in which only images that satisfy the filter are found. Raises `ApiError` (422)."""
    if wanted is None or collection.library is None:
        return collection
    return replace(collection, library=collection.library.filtered(_satisfying(collection, wanted)))


def satisfying(
    documents: Sequence[Document], wanted: Filter | None, collections: Mapping[str, ServedCollection]
) -> tuple[int, ...] | None:
    """The places of the documents that satisfy the filter; None without one. Raises `ApiError` (422) for a document
    that is no image of a registered collection and so has no metadata, and where none satisfies it."""
    if wanted is None:
        return None
    inner: dict[str, dict[str, list[int]]] = {}
    for index, document in enumerate(documents):
        place = find_image(collections, document.image_id) if isinstance(document, ImageDocument) else None
        if place is None:
            raise ApiError(
                422,
                "no_metadata",
                f"document {index} is no image of a registered collection, so it has no metadata to filter by; leave "
                "the filter out, or send documents like fieldscope://COLLECTION/ID",
            )
        inner.setdefault(place[0].name, {}).setdefault(place[1], []).append(index)
    try:
        chosen = [
            index
            for name, places in inner.items()
            for image_id in wanted.select(collections[name].records, list(places))
            for index in places[image_id]
        ]
    except ConfigError as error:
        raise _refused(error) from error
    if not chosen:
        raise ApiError(
            422, "bad_filter", f"none of {len(documents)} documents satisfies the filter ({wanted}); change a condition"
        )
    return tuple(sorted(chosen))


def metadata_of(collections: Mapping[str, ServedCollection], document: Document | str) -> dict[str, str] | None:
    """The cells of a call's image by column; None where it has none."""
    image_id = document.image_id if isinstance(document, ImageDocument) else document
    place = find_image(collections, image_id) if isinstance(image_id, str) else None
    return dict(place[0].records.of(place[1])) or None if place is not None else None


def _satisfying(collection: ServedCollection, wanted: Filter) -> list[str]:
    try:
        return collection.satisfying(wanted)
    except ConfigError as error:
        raise _refused(error) from error


def _refused(error: ConfigError) -> ApiError:
    return ApiError(422, "bad_filter", str(error))

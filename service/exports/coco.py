"""A search's finds as COCO Camera Traps JSON (https://github.com/agentmorris/MegaDetector, data_management/README)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fieldscope.core.errors import ImageError
from fieldscope.core.types import RegionSource
from fieldscope.service.exports.finds import Finds
from fieldscope.service.metadata.records import Records
from fieldscope.service.workflows.ranked_image import RankedImage

_LOCATIONS = ("location", "locationID", "station", "site", "camera", "deployment", "deploymentID", "locality")
_EMPTY, _FOUND = 0, 1


def coco_camera_traps(finds: Finds) -> dict[str, Any]:
    """The finds as one JSON-able object: a category that is the query, an annotation for each image, and the images
    with size, time, place and burst where they are known. A field that is not known is left out."""
    today = datetime.now(UTC)
    images = [_image(image, finds) for image in finds.images]
    return {
        "info": {
            "version": "1.0",
            "description": f"Images found with Fieldscope for: {finds.ranking.query}",
            "year": today.year,
            "contributor": "Fieldscope",
            "date_created": today.date().isoformat(),
        },
        "images": images,
        "categories": [{"id": _EMPTY, "name": "empty"}, {"id": _FOUND, "name": finds.ranking.query}],
        "annotations": [
            {
                "id": f"{finds.search_id}-{image.rank}",
                "image_id": image.image_id,
                "category_id": _FOUND,
                "sequence_level_annotation": False,
                **_known({"p_match": image.p_match, "mark": finds.marks.get(image.image_id), "reason": image.reason}),
            }
            for image in finds.images
        ],
    }


def _image(image: RankedImage, finds: Finds) -> dict[str, Any]:
    records = finds.ranking.records
    span = records.time(image.image_id)
    width, height = _size(image, finds)
    taken = f"{span.first:%Y-%m-%d %H:%M:%S}" if span is not None and span.first == span.last else None
    known = {"width": width, "height": height, "datetime": taken, "location": _location(image, records)}
    burst = records.group(image.image_id)
    if len(burst) > 1:
        known |= {"seq_id": burst[0], "seq_num_frames": len(burst), "frame_num": burst.index(image.image_id)}
    return {"id": image.image_id, "file_name": image.image_id, **_known(known), "metadata": dict(image.metadata)}


def _size(image: RankedImage, finds: Finds) -> tuple[int | None, int | None]:
    images = finds.ranking.images
    try:
        return images.size(image.image_id) if isinstance(images, RegionSource) else image.load().size
    except ImageError:
        return None, None


def _location(image: RankedImage, records: Records) -> str | None:
    by_name = {column.casefold(): column for column in records.columns}
    columns = (by_name.get(name.casefold()) for name in _LOCATIONS)
    return next((cell for column in columns if column and (cell := image.metadata.get(column))), None)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

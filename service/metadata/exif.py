"""Time and place of a photograph, as the camera wrote them. Nothing else is read from its metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags

from fieldscope.core.errors import ImageError
from fieldscope.retrieval.images import opened
from fieldscope.service.metadata.spans import read_span

EXIF_TIME, EXIF_LATITUDE, EXIF_LONGITUDE = "exif_time", "exif_latitude", "exif_longitude"
"""The columns of what is read: an ISO 8601 time as the camera's clock had it, and decimal degrees."""

EXIF_COLUMNS = (EXIF_TIME, EXIF_LATITUDE, EXIF_LONGITUDE)


def read_exif(source: Path | bytes) -> dict[str, str]:
    """Time and place by column; what is missing or damaged is left out. The picture is not decoded."""
    try:
        with opened(source) as image:
            tags = image.getexif()
            details, place = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
            own = {ExifTags.Base.DateTime: tags.get(ExifTags.Base.DateTime)}
    except ImageError:
        return {}
    written = details.get(ExifTags.Base.DateTimeOriginal) or own[ExifTags.Base.DateTime]
    time = _time(written)
    latitude = _degrees(place, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, 90)
    longitude = _degrees(place, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, 180)
    found = {EXIF_TIME: time} if time else {}
    # A receiver without a fix writes zeros.
    if latitude is not None and longitude is not None and (latitude, longitude) != (0, 0):
        found |= {EXIF_LATITUDE: f"{latitude:.6f}", EXIF_LONGITUDE: f"{longitude:.6f}"}
    return found


def _time(written: object) -> str | None:
    span = read_span(written.strip("\0 ")) if isinstance(written, str) else None
    return span.first.isoformat() if span is not None and span.first == span.last else None


def _degrees(place: Mapping[int, Any], angle: int, direction: int, most: int) -> float | None:
    try:
        degrees, minutes, seconds = map(float, place[angle])
        value = degrees + minutes / 60 + seconds / 3600
        sign = -1 if str(place.get(direction, "")).strip("\0 ").upper() in ("S", "W") else 1
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return sign * value if math.isfinite(value) and value <= most else None

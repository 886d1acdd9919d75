"""Parts of stored pictures at full resolution, and their size: what closer looks need of photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as PILImage

from fieldscope.core.looks import Region
from fieldscope.retrieval.images import (
    DEFAULT_LIMITS,
    SCALED_FORMATS,
    ImageLimits,
    loaded_range,
    opened,
    orientation,
    to_rgb,
    turned_upright,
)

_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations under which width and height change places
_JPEG_SCALES = (8, 4, 2)  # at which a JPEG can be decoded, for a fraction of the time and memory

Box = tuple[int, int, int, int]


def picture_size(
    source: Path | str | bytes, limits: ImageLimits = DEFAULT_LIMITS, *, name: str | None = None
) -> tuple[int, int]:
    """Width and height of the upright picture in a file; no more than its header is read. Raises what `open_image`
    does."""
    with opened(source, limits, name=name) as image:
        return upright_size(image)


def open_regions(
    source: Path | str | bytes,
    regions: Sequence[Region],
    max_pixels: int,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
) -> list[PILImage.Image]:
    """Regions of the upright picture in a file, as RGB, each scaled down to `max_pixels` where it has more.

    The picture is decoded once, a JPEG no larger than the regions need. Raises what `open_image` does.
    """
    with opened(source, limits, name=name) as image:
        pixels = image.width * image.height
        least = min((region.area * pixels for region in regions), default=0.0)
        for scale in _JPEG_SCALES:
            if image.format in SCALED_FORMATS and least >= max_pixels * scale**2:
                image.draft(None, (image.width // scale, image.height // scale))
                break
        return regions_of(image, regions, max_pixels)


def regions_of(image: PILImage.Image, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
    """The same of an opened picture. Pillow's errors pass through."""
    range_ = loaded_range(image)
    turn = orientation(image)
    width, height = upright_size(image)
    boxes = (_stored(region.pixels(width, height), (width, height), turn) for region in regions)
    return [within(turned_upright(to_rgb(image.crop(box), range_), turn), max_pixels) for box in boxes]


def within(image: PILImage.Image, max_pixels: int) -> PILImage.Image:
    """The picture itself, or a smaller copy that has no more than `max_pixels`."""
    share = math.sqrt(max_pixels / (image.width * image.height))
    if share >= 1:
        return image
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(size, PILImage.Resampling.LANCZOS, reducing_gap=2.0)


def upright_size(image: PILImage.Image) -> tuple[int, int]:
    """Width and height of an opened picture when it is turned upright."""
    return (image.height, image.width) if orientation(image) in _TURNED else image.size


def _stored(box: Box, size: tuple[int, int], turn: int) -> Box:
    """Where a box of the upright picture of this size lies in the picture as it is stored."""
    (left, top, right, bottom), (width, height) = box, size
    if turn in (2, 3, 6, 7):
        left, right = width - right, width - left
    if turn in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if turn in _TURNED else (left, top, right, bottom)

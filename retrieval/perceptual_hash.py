"""A hash of what a picture looks like, by which copies are found that were scaled, compressed or brightened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from fieldscope.retrieval.images import loaded_range, opened, orientation, to_rgb, turned_upright

BITS = 256

_SIDE = 16
_ENOUGH = 256  # pixels on a side, to which a JPEG is scaled while it is decoded


def perceptual_hash(source: Path | bytes) -> int | None:
    """The difference hash (dHash) of a picture in a file, or in the bytes of one, `BITS` bits: for each of 16 x 16
    places of the grey picture, whether it is darker than its right neighbour. None where most places are as bright as
    their neighbours: flat pictures would all look alike. Raises what `open_image` does."""
    with opened(source) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (_ENOUGH, _ENOUGH))
        range_ = loaded_range(image)
        small = image.reduce(max(min(image.size) // _ENOUGH, 1)) if image.mode in ("L", "RGB") else image
        return hash_of(turned_upright(to_rgb(small, range_), orientation(image)))


def hash_of(image: PILImage.Image) -> int | None:
    """The same of an upright picture in RGB."""
    grey = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), PILImage.Resampling.BOX), dtype=np.int16)
    steps = np.diff(grey, axis=1)
    if np.count_nonzero(steps) < BITS // 2:
        return None
    return int.from_bytes(np.packbits(steps > 0).tobytes())


def distance(one: int, other: int) -> int:
    """How many bits of two hashes differ."""
    return (one ^ other).bit_count()

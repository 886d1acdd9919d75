"""Images, and beside them every look at one of them, under the ids of `fieldscope.core.looks`."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from PIL import Image as PILImage
from PIL import ImageFilter, ImageOps

from fieldscope.core.documents import has_image, text_of
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.looks import Look, Region, read_look
from fieldscope.core.types import HashSource, ImageSource, RegionSource, RemembersHashes
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.median import median_of_nine
from fieldscope.retrieval.picture_parts import within

LOOK_PIXELS = 4_000_000
"""What a look shows is scaled down to this many pixels: more than models read, and 12 MB."""

WHOLE = Region(left=0, top=0, right=1, bottom=1)

_KEPT_BYTES = 64_000_000


class LookedAt:
    """An `ImageSource` of all `images` and of all looks at them.

    What a look shows is cut and enhanced once, and kept while there is room, so that its hash is that of the very
    pixels that are sent. Hashes of looks are kept for good, like those of images.
    """

    def __init__(self, images: ImageSource, kept_bytes: int = _KEPT_BYTES) -> None:
        self.images = images
        self._shown: ByteLru[PILImage.Image] = ByteLru(kept_bytes)
        self._hashes: dict[str, str] = {}
        self._showing = threading.Lock()

    def load(self, image_id: str) -> PILImage.Image:
        """The picture, or what the look at it shows. It is shared: copy it before drawing on it. Raises `ImageError`"""
        seen = read_look(image_id)
        if seen is None:
            return self.images.load(image_id)
        shown = self._shown.get(image_id)
        if shown is None:
            with self._showing:  # large photographs are decoded one after the other
                shown = self._shown.get(image_id) or show(self.images, *seen)
                self._shown.put(image_id, shown, 3 * shown.width * shown.height)
        return shown

    def text_of(self, document_id: str) -> str:
        """The words of a document; none of a look at its picture."""
        return "" if read_look(document_id) else text_of(self.images, document_id)

    def has_image(self, document_id: str) -> bool:
        """Whether a document has a picture."""
        return read_look(document_id) is not None or has_image(self.images, document_id)

    def known_hash(self, image_id: str) -> str | None:
        """The hash where it is known without reading an image, else None."""
        if image_id in self._hashes:
            return self._hashes[image_id]
        if read_look(image_id) is not None:
            return None
        if isinstance(self.images, HashSource):
            return self.images.pixel_hash(image_id)
        return self.images.known_hash(image_id) if isinstance(self.images, RemembersHashes) else None

    def pixel_hash(self, image_id: str) -> str:
        """SHA-256 of the pixels that are shown. Raises `ImageError`."""
        if read_look(image_id) is None:
            return self.images.pixel_hash(image_id)
        if image_id not in self._hashes:
            self._hashes[image_id] = fingerprint_pixels(self.load(image_id))
        return self._hashes[image_id]


def with_looks(images: ImageSource) -> ImageSource:
    """The images with every look at them."""
    return images if isinstance(images, LookedAt) else LookedAt(images)


def show(images: ImageSource, image_id: str, look: Look) -> PILImage.Image:
    """What a look at an image shows: at most `LOOK_PIXELS`. Raises `ImageError`."""
    if look.region is None:
        shown = within(images.load(image_id), LOOK_PIXELS) if look.enhance else images.load(image_id)
    else:
        shown = cut(images, image_id, [look.region], LOOK_PIXELS)[0]
    return enhanced(shown, look.cutoff, look.median) if look.enhance else shown


def stored_size(images: ImageSource, image_id: str) -> tuple[int, int]:
    """Width and height of the upright picture as it is stored. Raises `ImageError`."""
    return images.size(image_id) if isinstance(images, RegionSource) else images.load(image_id).size


def load_reduced(images: ImageSource, image_id: str, max_pixels: int) -> PILImage.Image:
    """The picture, or a smaller copy of one with more than `max_pixels`, for which a JPEG is not decoded in full.

    Raises `ImageError`.
    """
    if isinstance(images, RegionSource):
        width, height = images.size(image_id)
        if width * height > max_pixels:
            return images.load_regions(image_id, [WHOLE], max_pixels)[0]
    return images.load(image_id)


def cut(images: ImageSource, image_id: str, regions: Sequence[Region], max_pixels: int) -> list[PILImage.Image]:
    """Regions of an image at the source's full resolution, each scaled down to at most `max_pixels`.

    Raises `ImageError`.
    """
    if isinstance(images, RegionSource):
        return images.load_regions(image_id, regions, max_pixels)
    image = images.load(image_id)
    return [within(image.crop(region.pixels(*image.size)), max_pixels) for region in regions]


def enhanced(image: PILImage.Image, cutoff: float | None, median: int) -> PILImage.Image:
    """An RGB picture denoised by the median of `median` x `median` pixels, then with each channel's contrast stretched
    without the `cutoff` percent of darkest and brightest pixels."""
    denoised = image if median == 1 else _denoised(image, median)
    return denoised if cutoff is None else ImageOps.autocontrast(denoised, cutoff)


def _denoised(image: PILImage.Image, median: int) -> PILImage.Image:
    return median_of_nine(image) if median == 3 else image.filter(ImageFilter.MedianFilter(median))

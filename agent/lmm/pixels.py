"""The pixels that a request was made with."""

from __future__ import annotations

from PIL import Image as PILImage

from fieldscope.agent.lmm.base import ImagePart
from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import ImageSource


def load_pixels(images: ImageSource, part: ImagePart) -> PILImage.Image:
    """The picture of a request, with the very pixels whose hash the request and its cache key were made with.

    The file may have been replaced since it was hashed; then the answer about the new pixels would be kept for the old
    ones. Raises `ImageError` for a picture that can't be read, or is not the one that was hashed.
    """
    image = images.load(part.image_id)
    if fingerprint_pixels(image) != part.sha256:
        raise BrokenImageError(
            f"image {part.image_id!r} was changed after it was first read; start again to use it as it is now"
        )
    return image

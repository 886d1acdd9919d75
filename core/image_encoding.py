"""How an image travels to a server: scaled into limits, encoded, and written as a data URL."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image as PILImage

ImageFormat = Literal["jpeg", "png"]
"""`jpeg`: JPEG of quality 95, and PNG for an image of at most `LOSSLESS_PIXELS`; `png`: PNG for every image."""

JPEG_QUALITY = 95
LOSSLESS_PIXELS = 16_384
"""Up to here (128 x 128) a PNG weighs little, and such images are mostly drawings, which JPEG blurs."""

_FORMAT_NAMES: dict[ImageFormat, str] = {"jpeg": f"jpeg{JPEG_QUALITY}", "png": "png"}


@dataclass(frozen=True)
class ImageEncoding:
    """The format of images, and how large they may be: at most `max_side` pixels a side and `max_pixels` in all (None:
    no limit). Larger ones are scaled down, in proportion."""

    format: ImageFormat = "jpeg"
    max_side: int | None = None
    max_pixels: int | None = None

    @property
    def name(self) -> str:
        """What tells two encodings apart in a model's identity, as in `jpeg95<=1024`. A limit on pixels that `max_side`
        keeps in any case is left out."""
        limits = [f"<={self.max_side}"] if self.max_side else []
        if self.max_pixels and (self.max_side is None or self.max_pixels < self.max_side**2):
            limits.append(f"<={self.max_pixels}px")
        return _FORMAT_NAMES[self.format] + ",".join(limits)

    def scale(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself where it is within the limits, else a smaller copy."""
        side, pixels = max(image.size), image.width * image.height
        by_side = self.max_side / side if self.max_side else 1.0
        by_pixels = math.sqrt(self.max_pixels / pixels) if self.max_pixels else 1.0
        if min(by_side, by_pixels) >= 1.0:
            return image
        box = (self.max_side or side,) * 2
        if by_pixels < by_side:
            box = (max(1, int(image.width * by_pixels)), max(1, int(image.height * by_pixels)))
        scaled = image.copy()
        scaled.thumbnail(box, PILImage.Resampling.LANCZOS)
        return scaled

    def data_url(self, image: PILImage.Image) -> str:
        """The image, scaled and encoded, as a data URL."""
        scaled = self.scale(image)
        buffer = io.BytesIO()
        if self.format == "png" or scaled.width * scaled.height <= LOSSLESS_PIXELS:
            media_type = "image/png"
            scaled.save(buffer, format="PNG", compress_level=1)  # a faster, slightly larger file
        else:
            media_type = "image/jpeg"
            scaled.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        return f"data:{media_type};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

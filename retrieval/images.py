"""Opening untrusted images: bounded in bytes and pixels, upright, and always RGB."""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from fieldscope.core.errors import BrokenImageError, ImageTooLargeError
from fieldscope.retrieval.formats import FORMATS, why_undecoded

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
# `warnings.catch_warnings` swaps a global list, so two threads must not be inside at once.
_quiet_lock = threading.Lock()


@dataclass(frozen=True)
class ImageLimits:
    """The largest picture that is opened: bytes as stored, and pixels (width times height) as decoded."""

    max_bytes: int = 50_000_000
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = ImageLimits()


def open_image(
    source: Path | str | bytes, limits: ImageLimits = DEFAULT_LIMITS, *, name: str | None = None
) -> PILImage.Image:
    """The picture in a file, or in the bytes of one, as RGB: EXIF orientation applied, transparency over white, 16-bit
    and floating-point greys scaled to 8 bits, the first frame of an animation. It carries no metadata.

    `name` is what error messages call it (by default the path). Bytes are counted before they are read, and pixels
    from the header before any is decoded. Raises `ImageTooLargeError` or `BrokenImageError`.
    """
    label = repr(name or ("image" if isinstance(source, bytes) else str(source)))
    data = source if isinstance(source, bytes) else _read(Path(source), limits, label)
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(label, len(data), limits)
    try:
        with _quiet():
            image = PILImage.open(io.BytesIO(data), formats=FORMATS)
    except PILImage.DecompressionBombError as error:
        raise ImageTooLargeError(f"{label} unpacks to far too many pixels; make it smaller or leave it out") from error
    except Exception as error:  # a damaged or hostile file makes the decoders raise almost anything
        raise _broken(label, why_undecoded(data) or _reason(error)) from error
    with image:
        if image.width * image.height > limits.max_pixels:
            raise ImageTooLargeError(
                f"{label} has {image.width} x {image.height} pixels, over the limit of"
                f" {limits.max_pixels / 1e6:g} megapixels; make it smaller or leave it out"
            )
        try:
            return upright_rgb(image)
        except Exception as error:  # as above
            raise _broken(label, _reason(error)) from error


def upright_rgb(image: PILImage.Image) -> PILImage.Image:
    """An opened image as RGB, EXIF orientation applied, transparency on white. Pillow's errors pass through."""
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    return rgb if upright is None else rgb.transpose(upright)


def _read(path: Path, limits: ImageLimits, label: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImageError(f"{label} is no regular file; give image files")
        if status.st_size > limits.max_bytes:
            raise _too_many_bytes(label, status.st_size, limits)
        with path.open("rb") as stream:
            return stream.read(status.st_size)
    except FileNotFoundError as error:
        raise BrokenImageError(f"{label} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BrokenImageError(f"{label} can't be read ({_reason(error)}); check the file") from error


def _too_many_bytes(label: str, size: int, limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{label} has {size / 1e6:.1f} MB, over the limit of {limits.max_bytes / 1e6:g} MB;"
        " make it smaller or leave it out"
    )


def _broken(label: str, reason: str) -> BrokenImageError:
    return BrokenImageError(f"{label} can't be read as an image ({reason}); replace it or leave it out")


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow about sizes, which we limit ourselves, or about damaged metadata, which is unused."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(image: PILImage.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where the metadata is absent or damaged, for the pixels may still be sound."""
    try:
        with _quiet():
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - damaged metadata makes its parsers raise almost anything
        return 1


def _to_rgb(image: PILImage.Image) -> PILImage.Image:
    if image.mode.startswith("I;16"):
        rgb = _grey(np.asarray(image).astype(np.float64) / 257.0)
    elif image.mode in ("I", "F"):
        rgb = _grey(_stretch(np.asarray(image).astype(np.float64)))
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = PILImage.alpha_composite(PILImage.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        rgb = image.convert("RGB")
    rgb.info.clear()  # a kept orientation tag would invite a second turn
    return rgb


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of unknown range, spread from 0 to 255; what is not finite becomes 0."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = values[finite].min(), values[finite].max()
    return np.where(finite, (values - low) * (255.0 / (high - low) if high > low else 0.0), 0.0)


def _grey(values: NDArray[np.float64]) -> PILImage.Image:
    return PILImage.fromarray(np.rint(values).astype(np.uint8), "L").convert("RGB")


def _reason(error: Exception) -> str:
    """The first line of a library's error, without the buffer address that Pillow adds."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in " + ", ".join(FORMATS)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]

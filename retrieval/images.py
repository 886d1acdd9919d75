"""Opening untrusted images: bounded in bytes and pixels, upright, and always RGB."""

from __future__ import annotations

import ctypes
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from fieldscope.core.errors import BrokenImageError, ImageTooLargeError
from fieldscope.retrieval.formats import readable_formats, why_undecoded

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
# A picture of 64 megapixels takes 192 MB, and 256 MB with transparency, so they are decoded one after the other, and of
# those that a phone takes (12 megapixels) two at once, where that leaves processors for other work.
_large_lock = threading.Lock()
_few_at_once = threading.BoundedSemaphore(2 if (os.cpu_count() or 1) > 2 else 1)
_SMALL_PIXELS = 4_000_000
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_HEAD_BYTES = 64
_BAND_ROWS = 256


@dataclass(frozen=True)
class ImageLimits:
    """The largest picture that is opened: bytes as stored, and pixels (width times height) as decoded."""

    max_bytes: int = 100_000_000
    max_pixels: int = 64_000_000


DEFAULT_LIMITS = ImageLimits()

SCALED_FORMATS = ("JPEG", "MPO")
"""Formats that can be decoded at a half, a quarter or an eighth of their width and height."""

WHOLE_PIXELS = 16_000_000
"""A picture with more pixels is handed out at half its width and height (or a quarter ...): models read far fewer, and
many such pictures are in memory at once. Its regions are cut at full resolution."""


def open_image(
    source: Path | str | bytes,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
    before_the_next: Callable[[PILImage.Image], None] = lambda image: None,
) -> PILImage.Image:
    """The picture in a file, or in the bytes of one, as RGB: EXIF orientation applied, transparency over white, 16-bit
    and floating-point values scaled to 8 bits, the first frame of an animation. It carries no metadata, and has at most
    `WHOLE_PIXELS`.

    `name` is what error messages call it (by default the path). Bytes are counted before they are read, and pixels
    from the header before any is decoded. Of large pictures few are decoded at once; what is to be done with one
    `before_the_next` keeps others waiting: threads that each hold one take a lot of memory. Raises `ImageTooLargeError`
    or `BrokenImageError`.
    """
    with opened(source, limits, name=name) as image:
        if image.format in SCALED_FORMATS:  # a quarter of the pixels, at a quarter of the time and memory
            factor = _factor(image, WHOLE_PIXELS)
            image.draft(None, (image.width // factor, image.height // factor))
        rgb = upright_rgb(image, WHOLE_PIXELS)
        before_the_next(rgb)
        return rgb


def open_full(source: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, name: str | None = None) -> PILImage.Image:
    """The same at the picture's own resolution. Raises what `open_image` does."""
    with opened(source, limits, name=name) as image:
        return upright_rgb(image, limits.max_pixels)


@contextmanager
def opened(
    source: Path | str | bytes, limits: ImageLimits = DEFAULT_LIMITS, *, name: str | None = None
) -> Iterator[PILImage.Image]:
    """A picture whose header is read and within the limits, to be decoded inside. One large picture is inside at a
    time. Whatever decoders raise becomes a `BrokenImageError` that calls the picture `name`."""
    label = repr(name or ("image" if isinstance(source, bytes) else str(source)))
    with ExitStack() as held:
        data = source if isinstance(source, bytes) else held.enter_context(_stream(Path(source), limits, label))
        if isinstance(data, bytes) and len(data) > limits.max_bytes:
            raise _too_many_bytes(label, len(data), limits)
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        try:
            with _quiet():
                image = held.enter_context(PILImage.open(stream, formats=readable_formats()))
        except PILImage.DecompressionBombError as error:
            raise ImageTooLargeError(
                f"{label} unpacks to far too many pixels; make it smaller or leave it out"
            ) from error
        except Exception as error:  # a damaged or hostile file makes the decoders raise almost anything
            stream.seek(0)
            raise _broken(label, why_undecoded(stream.read(_HEAD_BYTES)) or _reason(error)) from error
        pixels = image.width * image.height
        if pixels > limits.max_pixels:
            raise ImageTooLargeError(
                f"{label} has {image.width} x {image.height} pixels, over the limit of"
                f" {limits.max_pixels / 1e6:g} megapixels; make it smaller or leave it out"
            )
        if pixels > _SMALL_PIXELS:
            _return_freed_blocks()
        if pixels > WHOLE_PIXELS:
            held.enter_context(_large_lock)
        elif pixels > _SMALL_PIXELS:
            held.enter_context(_few_at_once)
        try:
            yield image
        except Exception as error:  # as above
            raise _broken(label, _reason(error)) from error


def upright_rgb(image: PILImage.Image, most_pixels: int = WHOLE_PIXELS) -> PILImage.Image:
    """An opened image as RGB, EXIF orientation applied, transparency on white, each pixel the mean of as many squares
    of 2 x 2 as leave at most `most_pixels`. Pillow's errors pass through."""
    range_ = loaded_range(image)
    factor = _factor(image, most_pixels)
    rgb = PILImage.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, _BAND_ROWS):  # an image with transparency would take four times its size
        band = to_rgb(image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height))), range_)
        rgb.paste(band.reduce(factor) if factor > 1 else band, (0, top // factor))
    return turned_upright(rgb, orientation(image))


def _factor(image: PILImage.Image, most_pixels: int) -> int:
    """The power of 2 by which width and height are divided."""
    factor = 1
    while (image.width // factor) * (image.height // factor) > most_pixels:
        factor *= 2
    return factor


def turned_upright(stored: PILImage.Image, exif_orientation: int) -> PILImage.Image:
    """A picture turned and mirrored as its EXIF orientation (1 to 8) says."""
    upright = _UPRIGHT.get(exif_orientation)
    return stored if upright is None else stored.transpose(upright)


@cache
def _return_freed_blocks() -> None:
    """Have glibc, where that is the C library, map each block over a megabyte by itself, so that it goes back to the
    system when it is freed, and let threads share two arenas. Pictures lie in blocks of 16 MB, and those that threads
    free would stay in their arenas: gigabytes, after a hundred photographs."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_ARENA_MAX, 2)


@contextmanager
def _stream(path: Path, limits: ImageLimits, label: str) -> Iterator[IO[bytes]]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImageError(f"{label} is no regular file; give image files")
        if status.st_size > limits.max_bytes:
            raise _too_many_bytes(label, status.st_size, limits)
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise BrokenImageError(f"{label} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BrokenImageError(f"{label} can't be read ({_reason(error)}); check the file") from error
    with stream:
        yield stream


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


def orientation(image: PILImage.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where the metadata is absent or damaged, for the pixels may still be sound."""
    try:
        with _quiet():
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - damaged metadata makes its parsers raise almost anything
        return 1


def loaded_range(image: PILImage.Image) -> tuple[float, float] | None:
    """Decode an opened picture, and say which of its values become black and white: of 16 bits those from 0 to the most
    that its bits in use can hold, as sensors write 10 to 14 bits into 16; of values without a known range the least and
    the greatest finite one. None for any other, and where no value is finite."""
    # Of colours in 16 bits Pillow keeps the upper half.
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    image.load()
    if image.mode.startswith("I;16"):
        return 0.0, float(2 ** max(int(_extent(image)[1]).bit_length(), 8) - 1)
    if image.mode in ("I", "F"):
        low, high = _extent(image)
        return (low, high) if low <= high else None
    if deep and image.mode in ("RGB", "RGBA"):
        most = max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]  # three bands
        return (0.0, float(2 ** int(most).bit_length() - 1)) if most else None
    return None


def _extent(image: PILImage.Image) -> tuple[float, float]:
    """The least and the greatest finite value of a picture in grey; infinite and the wrong way round without one."""
    values = np.asarray(image)
    low, high = np.inf, -np.inf
    for top in range(0, len(values), _BAND_ROWS):
        band = values[top : top + _BAND_ROWS]
        finite = band[np.isfinite(band)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high


def to_rgb(image: PILImage.Image, range_: tuple[float, float] | None) -> PILImage.Image:
    """A picture, or a part of one whose values lie in `range_`, as RGB without metadata."""
    if image.mode.startswith("I;16"):
        rgb = _grey(_stretch(np.asarray(image).astype(np.float64), range_ or (0.0, 65535.0)))
    elif image.mode in ("I", "F"):
        rgb = _grey(_stretch(np.asarray(image).astype(np.float64), range_))
    elif image.has_transparency_data:
        rgba = _brightened(image.convert("RGBA"), range_)
        rgb = PILImage.alpha_composite(PILImage.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        rgb = _brightened(image.convert("RGB"), range_)
    rgb.info.clear()  # a kept orientation tag would invite a second turn
    return rgb


def _stretch(values: NDArray[np.float64], range_: tuple[float, float] | None) -> NDArray[np.float64]:
    """Values of this range, spread from 0 to 255; what is not finite becomes 0."""
    if range_ is None:
        return np.zeros_like(values)
    low, high = range_
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values), (values - low) * (255.0 / (high - low) if high > low else 0.0), 0.0)


def _brightened(image: PILImage.Image, range_: tuple[float, float] | None) -> PILImage.Image:
    """Colours of which only a range is in use, spread from 0 to 255; transparency stays."""
    if range_ is None or range_[1] >= 255:
        return image
    spread = [min(round(value * 255 / range_[1]), 255) for value in range(256)]
    return image.point([*spread * 3, *(range(256) if image.mode == "RGBA" else ())])


def _grey(values: NDArray[np.float64]) -> PILImage.Image:
    return PILImage.fromarray(np.rint(values).astype(np.uint8), "L").convert("RGB")


def _reason(error: Exception) -> str:
    """The first line of a library's error, without the buffer address that Pillow adds."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in " + ", ".join(readable_formats())
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]

"""Which files are supported images, by their content, and why others are not."""

from __future__ import annotations

import stat
from functools import cache
from pathlib import Path

from PIL import Image as PILImage

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "PSD", "QOI", "DIB", "PCX", "SGI", "DDS"),
)
"""What Pillow reads, but for formats that run another program (EPS), that have no signature (TGA), whose pictures can
be larger than their header says (ICO, ICNS), and that hold data rather than pictures (FITS, HDF5)."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Files with these endings are taken for pictures without a look at their content."""

HEIC = "HEIC needs the package pillow-heif; install it with `pip install pillow-heif`, or convert the file to JPEG"
RAW = "a camera's raw file; export it as JPEG or TIFF"
VIDEO = "a video; save the frames to search as JPEG"
UNKNOWN = f"no picture in {', '.join(FORMATS)}"

_HEAD_BYTES = 64
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF = "HEIF"  # what pillow-heif calls its decoder
_JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw"),
        *(".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f", ".fff", ".gpr", ".mef", ".mos"),
    }
)
"""Most of them are TIFF files, of which Pillow would read the thumbnail."""

_VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"),
        *(".asf", ".ogv"),
    }
)
_VIDEO_BRANDS = frozenset({b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ", b"3gp4", b"3gp5", b"mp4v"})
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01")


@cache
def readable_formats() -> tuple[str, ...]:
    """`FORMATS`, and HEIC where the package pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, _HEIF)


def why_other_kind(path: Path) -> str | None:
    """Why a file is no picture by its ending: a camera's raw file, or a video. None for any other."""
    suffix = path.suffix.lower()
    if suffix in _RAW_SUFFIXES:
        return RAW
    return VIDEO if suffix in _VIDEO_SUFFIXES else None


def why_no_picture(path: Path) -> str | None:
    """Why a file is not a supported image; None where it begins like one, whatever its name."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "no regular file"
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    if not head:
        return "the file is empty"
    if head.startswith(b"PAR1"):
        return "a Parquet file among images; give Parquet files by themselves"
    if other := why_other_kind(path):
        return other
    return why_undecoded(head) or (None if _is_accepted(head) else UNKNOWN)


def why_undecoded(data: bytes) -> str | None:
    """The reason why Pillow can't decode a picture that begins with `data`, where the format is known and is it."""
    if data[4:8] == b"ftyp":
        size = int.from_bytes(data[:4], "big")
        brands = {data[at : at + 4] for at in (8, *range(16, min(size, _HEAD_BYTES), 4))}
        if brands & _HEIC_BRANDS and not brands & _AVIF_BRANDS:
            return None if _HEIF in readable_formats() else HEIC
        if data[8:12] in _VIDEO_BRANDS:
            return VIDEO
    if data.startswith(_VIDEO_STARTS) or (data.startswith(b"RIFF") and data[8:12] == b"AVI "):
        return VIDEO
    return "Pillow does not read JPEG XL; convert it to JPEG" if data.startswith(_JPEG_XL) else None


def _is_accepted(head: bytes) -> bool:
    """Whether one of Pillow's decoders takes the file for its own by its first bytes."""
    PILImage.init()
    accepts = (accept for _, accept in map(PILImage.OPEN.__getitem__, readable_formats()) if accept is not None)
    start = head[:16].ljust(16, b"\0")  # some of them count on so many bytes
    return any(accept(start) is True for accept in accepts)

"""16-bit files of which fewer bits are in use: as bright as the same picture in 8 bits."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage

from fieldscope.core.looks import Region
from fieldscope.retrieval.images import open_image
from fieldscope.retrieval.picture_parts import open_regions

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))


def grey(bits: int, kind: str) -> bytes:
    """The ramp from black to the most that so many bits hold, in a file of 16 bits."""
    stream = io.BytesIO()
    PILImage.fromarray((RAMP * (2**bits - 1)).round().astype(np.uint16)).save(stream, kind)
    return stream.getvalue()


def colours(bits: int) -> bytes:
    """The same in red, as a PNG of 16 bits a colour, which Pillow does not write."""
    pixels = np.zeros((*RAMP.shape, 3), dtype=">u2")
    pixels[:, :, 0] = (RAMP * (2**bits - 1)).round()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", RAMP.shape[1], RAMP.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def values(image: PILImage.Image, channel: int = 0) -> NDArray[np.float64]:
    return np.asarray(image)[:, :, channel].astype(np.float64)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_greys_fill_the_whole_range(bits: int, kind: str) -> None:
    assert np.abs(values(open_image(grey(bits, kind))) - RAMP * 255).max() <= 1


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_colours_are_as_bright_as_their_bits_allow(bits: int) -> None:
    shown = open_image(colours(bits))
    assert values(shown).max() == 255 and values(shown, 1).max() == 0
    assert np.abs(values(shown) - RAMP * 255).max() <= 256 / 2 ** (bits - 8)


def test_a_part_is_as_bright_as_the_whole() -> None:
    """Also a part in which fewer bits are in use than in the whole picture."""
    data = grey(12, "PNG")
    whole = open_image(data).crop((0, 0, 16, 48))
    (part,) = open_regions(data, [Region(left=0, top=0, right=0.25, bottom=1)], 10_000)
    assert np.array_equal(values(part), values(whole))


def test_a_black_picture_stays_black() -> None:
    stream = io.BytesIO()
    PILImage.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(stream, "PNG")
    assert values(open_image(stream.getvalue())).max() == 0

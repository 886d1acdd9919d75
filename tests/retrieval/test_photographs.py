"""Large photographs: bounded in memory, upright, their regions at full resolution, whatever they are stored as."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ImageTooLargeError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.looks import Look, Region, look_id
from fieldscope.retrieval import picture_parts
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.images import WHOLE_PIXELS, ImageLimits, open_image
from fieldscope.retrieval.looked_at import LOOK_PIXELS, LookedAt
from fieldscope.retrieval.picture_parts import open_regions, picture_size, regions_of

CORNER = Region(left=0.5, top=0, right=0.9, bottom=0.25)


def stored(image: PILImage.Image, kind: str, orientation: int = 1, **options: Any) -> bytes:
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def noise(width: int, height: int, channels: int = 3) -> PILImage.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return PILImage.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_refers_to_the_upright_picture(orientation: int) -> None:
    data = stored(noise(40, 28), "PNG", orientation)
    upright = open_image(data)
    assert picture_size(data) == upright.size
    (cut,) = open_regions(data, [CORNER], LOOK_PIXELS)
    assert cut.tobytes() == upright.crop(CORNER.pixels(*upright.size)).tobytes()


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (noise(40, 28, 1), "PNG"),
        (noise(40, 28).convert("CMYK"), "TIFF"),
        (noise(40, 28, 4), "PNG"),
        (noise(40, 28).convert("P"), "PNG"),
        (PILImage.fromarray(np.arange(0, 1120, dtype=np.uint16).reshape(28, 40) * 58), "PNG"),
        (PILImage.fromarray(np.arange(0, 1120, dtype=np.float32).reshape(28, 40)), "TIFF"),
        (PILImage.fromarray(np.arange(0, 1120, dtype=np.int32).reshape(28, 40)), "TIFF"),
    ],
)
def test_a_region_has_the_colours_of_the_whole(image: PILImage.Image, kind: str) -> None:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    whole = open_image(buffer.getvalue())
    (cut,) = open_regions(buffer.getvalue(), [CORNER], LOOK_PIXELS)
    assert cut.tobytes() == whole.crop(CORNER.pixels(*whole.size)).tobytes()


def test_a_large_picture_is_handed_out_at_half_its_size_and_cut_at_full(tmp_path: Path) -> None:
    lines = np.zeros((3600, 5000, 3), np.uint8)
    lines[:, ::2] = 200  # which half the size can't show
    PILImage.fromarray(lines).save(tmp_path / "a.png", compress_level=1)
    PILImage.fromarray(lines).save(tmp_path / "b.bmp")
    collection = FolderCollection(tmp_path)
    assert lines.shape[0] * lines.shape[1] > WHOLE_PIXELS
    for name in ("a.png", "b.bmp"):
        whole = collection.load(name)
        assert whole.size == (2500, 1800)
        assert np.asarray(whole).min() == np.asarray(whole).max() == 100
        assert collection.size(name) == (5000, 3600)
        seen = LookedAt(collection).load(look_id(name, Look(region=CORNER)))
        assert seen.size == (2000, 900)
        assert np.asarray(seen)[0, :4, 0].tolist() == [200, 0, 200, 0]
    assert (
        collection.pixel_hash("a.png") == collection.pixel_hash("b.bmp") == fingerprint_pixels(collection.load("a.png"))
    )


def test_a_jpeg_is_decoded_no_larger_than_its_regions_need(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, int]] = []

    def counting(image: PILImage.Image, *args: Any) -> list[PILImage.Image]:
        decoded.append(image.size)
        return regions_of(image, *args)

    monkeypatch.setattr(picture_parts, "regions_of", counting)
    data = stored(noise(1600, 1200), "JPEG", orientation=6)
    (small,) = open_regions(data, [CORNER], 100 * 100)
    (large,) = open_regions(data, [CORNER], LOOK_PIXELS)
    assert decoded == [(400, 300), (1600, 1200)]
    assert small.width * small.height <= 100 * 100
    assert large.size == (480, 400)


def test_what_is_too_large_or_cut_off_says_so(tmp_path: Path) -> None:
    data = stored(noise(300, 200), "JPEG")
    with pytest.raises(ImageTooLargeError, match=r"'a' has 300 x 200 pixels, over the limit of 0\.05 megapixels"):
        open_regions(data, [CORNER], 100, ImageLimits(max_pixels=50_000), name="a")
    with pytest.raises(BrokenImageError, match=r"'a' can't be read as an image .*truncated"):
        open_regions(data[: len(data) // 2], [CORNER], 10**6, name="a")
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    assert FolderCollection(tmp_path).size("half.jpg") == (300, 200), "its header is there"
    with pytest.raises(BrokenImageError, match="truncated"):
        LookedAt(FolderCollection(tmp_path)).pixel_hash(look_id("half.jpg", Look(region=CORNER)))

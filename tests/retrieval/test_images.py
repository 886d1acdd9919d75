"""Whatever a file holds, `open_image` gives an upright RGB picture or a one-line error that names the file."""

from __future__ import annotations

import io
import os
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ImageError, ImageTooLargeError
from fieldscope.retrieval import images as images_module
from fieldscope.retrieval.formats import FORMATS
from fieldscope.retrieval.images import ImageLimits, open_image


def encoded(image: PILImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Left half red, right half blue, top left corner green: tells all eight orientations apart.
MARKED = PILImage.new("RGB", (40, 20), "red")
MARKED.paste("blue", (20, 0, 40, 20))
MARKED.paste("lime", (0, 0, 10, 10))
SOURCES = [encoded(MARKED, kind) for kind in FORMATS if kind != "PSD"]  # which Pillow does not write


def test_a_10000_by_10000_png_is_refused_without_decoding(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    PILImage.new("1", (10_000, 10_000)).save(path)
    tracemalloc.start()
    with (
        warnings.catch_warnings(),
        pytest.raises(ImageTooLargeError, match=r"huge\.png' has 10000 x 10000 .* 64 megapixels"),
    ):
        warnings.simplefilter("error")
        open_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_decompression_bomb_is_refused() -> None:
    size = (60_000).to_bytes(4, "big") * 2
    header = b"IHDR" + size + b"\x08\x02\x00\x00\x00"
    bomb = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + header + zlib.crc32(header).to_bytes(4, "big") + b"\x00\x00\x00\x00IDAT"
    )
    with pytest.raises(ImageTooLargeError, match=r"'bomb\.png'"):
        open_image(bomb, name="bomb.png")


def test_pixels_are_counted_up_to_the_limit() -> None:
    data = encoded(PILImage.new("RGB", (30, 20)))
    assert open_image(data, ImageLimits(max_pixels=600)).size == (30, 20)
    with pytest.raises(ImageTooLargeError):
        open_image(data, ImageLimits(max_pixels=599))


def test_bytes_are_counted_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as stream:
        stream.truncate(10_000_000_000)
    with pytest.raises(ImageTooLargeError, match=r"10000\.0 MB, over the limit of 100 MB"):
        open_image(path)
    data = encoded(MARKED)
    with pytest.raises(ImageTooLargeError):
        open_image(data, ImageLimits(max_bytes=len(data) - 1))
    assert open_image(data, ImageLimits(max_bytes=len(data))).size == MARKED.size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # stored = upright, turned back by this transposition
    stored = MARKED.transpose(PILImage.Transpose(undo[orientation])) if orientation > 1 else MARKED
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(np.asarray(opened), np.asarray(MARKED))
    assert 0x0112 not in opened.getexif()


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = encoded(MARKED, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\x01\x12")
    assert open_image(data).size == MARKED.size


def test_cmyk() -> None:
    opened = open_image(encoded(PILImage.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert opened.mode == "RGB"
    red, green, blue = np.asarray(opened).reshape(-1, 3).mean(axis=0)
    assert red > 240 and green < 15 and blue < 15


def test_transparency_shows_white() -> None:
    palette = PILImage.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 30, 30])
    palette.putpixel((1, 0), 1)
    for image, options in (
        (palette, {"transparency": 0}),
        (PILImage.fromarray(np.array([[[9, 0], [77, 255]]], dtype=np.uint8), "LA"), {}),
        (PILImage.fromarray(np.array([[[9, 9, 9, 0], [1, 2, 3, 255]]], dtype=np.uint8), "RGBA"), {}),
        (PILImage.fromarray(np.array([[[5, 5, 5], [1, 2, 3]]], dtype=np.uint8), "RGB"), {"transparency": (5, 5, 5)}),
    ):
        opened = open_image(encoded(image, **options))
        assert opened.getpixel((0, 0)) == (255, 255, 255), image.mode
        assert opened.getpixel((1, 0)) == image.convert("RGB").getpixel((1, 0)), image.mode


def test_half_transparency_is_halfway_to_white() -> None:
    image = PILImage.fromarray(np.array([[[0, 128]]], dtype=np.uint8), "LA")
    assert open_image(encoded(image)).getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    values = np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)
    assert np.asarray(open_image(encoded(PILImage.fromarray(values))))[0, :, 0].tolist() == [0, 100, 255]


def test_floating_point_grey_is_spread() -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], dtype=np.float32)
    assert np.asarray(open_image(encoded(PILImage.fromarray(values), "TIFF")))[0, :, 0].tolist() == [0, 128, 255, 0]
    flat = np.full((1, 2), np.inf, dtype=np.float32)
    assert np.asarray(open_image(encoded(PILImage.fromarray(flat), "TIFF"))).max() == 0


def test_one_bit_and_plain_grey() -> None:
    for mode in ("1", "L"):
        opened = open_image(encoded(PILImage.new(mode, (3, 2), 255)))
        assert (opened.mode, opened.getpixel((2, 1))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [PILImage.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    opened = open_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (opened.mode, opened.getpixel((4, 4))) == ("RGB", (255, 0, 0))


def test_a_truncated_file_is_broken(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        data = encoded(PILImage.fromarray(noise), kind)
        path = tmp_path / f"cut.{kind.lower()}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(BrokenImageError, match=path.name):
            open_image(path)


@pytest.mark.parametrize("data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenImageError, match=r"'x\.png' can't be read as an image \(not a picture in JPEG"):
        open_image(data, name="x.png")


def test_what_is_no_file_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(BrokenImageError, match="no regular file"):
        open_image(tmp_path)
    with pytest.raises(BrokenImageError, match="can't be read"):
        open_image("a\x00b.png")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(BrokenImageError, match="no regular file"):
        open_image(pipe)


@settings(deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_picture_or_a_named_error(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SOURCES)))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=6)
    ):
        damaged[position] = value
    kept = data.draw(st.integers(0, len(damaged)))
    try:
        opened = open_image(bytes(damaged[:kept]), ImageLimits(max_pixels=100_000), name="two\nlines.png")
    except ImageError as error:
        assert "two\\nlines.png" in str(error) and len(str(error).splitlines()) == 1
    else:
        assert opened.mode == "RGB" and not opened.info


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "handed_out"), [((101, 75), (51, 38)), ((40, 25), (40, 25)), ((403, 301), (101, 76))])
def test_a_large_picture_is_handed_out_smaller_and_a_jpeg_decoded_no_larger(
    monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int], handed_out: tuple[int, int]
) -> None:
    monkeypatch.setattr(images_module, "WHOLE_PIXELS", 8_000 if size[0] > 400 else 3_000)
    decoded = []
    load = images_module.loaded_range
    monkeypatch.setattr(images_module, "loaded_range", lambda image: (decoded.append(image.size), load(image))[1])
    stream = io.BytesIO()
    PILImage.linear_gradient("L").resize(size).convert("RGB").save(stream, kind)
    seen: list[PILImage.Image] = []
    image = open_image(stream.getvalue(), before_the_next=seen.append)
    assert image.size == handed_out and seen == [image]
    assert decoded == [handed_out if kind == "JPEG" else size]
    rows = np.asarray(image.convert("L"), dtype=float).mean(axis=1)
    assert rows[0] < 10 and rows[-1] > 245 and (np.diff(rows) >= -1).all()

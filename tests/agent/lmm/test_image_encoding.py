"""How images travel: their format, their size, and how often they are encoded."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from fieldscope.agent.lmm.base import ImagePart
from fieldscope.agent.lmm.identity import named_identity, sent_otherwise, server_identity
from fieldscope.agent.lmm.image_encoding import EncodedImages
from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.image_encoding import ImageEncoding
from tests.agent.lmm.conftest import Pictures


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def part(image_id: str, pictures: Pictures) -> ImagePart:
    return ImagePart(image_id=image_id, sha256=pictures.pixel_hash(image_id))


@pytest.mark.parametrize(
    ("size", "form", "sent_as"),
    [
        ((128, 128), "jpeg", "PNG"),
        ((129, 128), "jpeg", "JPEG"),
        ((300, 200), "jpeg", "JPEG"),
        ((300, 200), "png", "PNG"),
    ],
)
def test_small_images_and_those_of_png_lose_nothing(size, form, sent_as) -> None:
    image = noise(*size)
    sent = decoded(ImageEncoding(form).data_url(image))
    assert (sent.format, sent.size) == (sent_as, size)
    assert (sent.tobytes() == image.tobytes()) == (sent_as == "PNG")


@pytest.mark.parametrize(
    ("max_side", "max_pixels", "size", "expected"),
    [
        (None, None, (400, 100), (400, 100)),
        (200, None, (400, 100), (200, 50)),
        (200, 1_024, (400, 100), (64, 16)),
        (None, 10_000, (400, 100), (200, 50)),
        (300, 40_000, (100, 200), (100, 200)),
        (None, 5, (1000, 1), (70, 1)),
    ],
)
def test_an_image_is_scaled_to_both_limits_in_proportion(max_side, max_pixels, size, expected) -> None:
    image = noise(*size)
    scaled = ImageEncoding("jpeg", max_side, max_pixels).scale(image)
    width, height = scaled.size
    assert image.size == size and abs(width - expected[0]) <= 1 and abs(height - expected[1]) <= 1
    assert width <= (max_side or width) and height <= (max_side or height)


def test_the_name_says_all_that_changes_what_is_sent_and_png_keeps_its_old_one() -> None:
    assert ImageEncoding("png", 1024, 1024**2).name == "png<=1024"
    assert ImageEncoding("png").name == "png"
    names = [
        ImageEncoding(form, side, pixels).name
        for form in ("jpeg", "png")
        for side in (None, 1024, 512)
        for pixels in (None, 100_000, 200_000)
    ]
    assert len(set(names)) == len(names)
    for facts in (None, {"root": "org/vl", "version": "1"}):
        for form, side, pixels in (
            ("jpeg", None, 5),
            ("jpeg", 8, 5),
            ("jpeg", 8, None),
            ("png", 8, 5),
            ("png", None, None),
        ):
            identity = server_identity("vl", "r", side, facts, pixels, form)
            assert named_identity(identity) == server_identity("vl", "r", side, None, pixels, form)
            assert sent_otherwise(identity) == "openai:vl@r"
    assert sent_otherwise("local:abc:float32") == "local:abc:float32"


async def test_an_image_is_encoded_once_however_many_ask_for_it_at_once() -> None:
    pictures = Pictures(a=noise(300, 200), b=noise(200, 300))
    encoded = EncodedImages(pictures, ImageEncoding())
    parts = await asyncio.gather(*(encoded.part(part(name, pictures)) for name in "abab"))
    assert parts[:2] == parts[2:] and encoded.encoded == 2 and pictures.loads == {"a": 1, "b": 1}
    assert decoded(json.loads(parts[0])["url"]).size == (300, 200)


async def test_what_is_kept_is_bounded_in_bytes() -> None:
    pictures = Pictures(a=noise(300, 200), b=noise(200, 300))
    encoded = EncodedImages(pictures, ImageEncoding(), kept_bytes=1)
    for name in ("a", "a", "b", "a"):
        await encoded.part(part(name, pictures))
    assert encoded.encoded == 3


async def test_a_changed_file_does_not_spoil_its_twin() -> None:
    pictures = Pictures(a=noise(300, 200), b=noise(300, 200))
    sha256 = fingerprint_pixels(noise(300, 200))
    pictures.pictures["a"] = noise(10, 10)
    encoded = EncodedImages(pictures, ImageEncoding())
    changed, sound = await asyncio.gather(
        *(encoded.part(ImagePart(image_id=name, sha256=sha256)) for name in "ab"), return_exceptions=True
    )
    assert isinstance(changed, BrokenImageError) and isinstance(sound, bytes)


async def test_one_that_gives_up_waiting_does_not_take_the_others_image_along() -> None:
    pictures = Pictures(a=noise(300, 200))
    encoded = EncodedImages(pictures, ImageEncoding())
    first, second = (asyncio.create_task(encoded.part(part("a", pictures))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).startswith(b'{"url"') and first.cancelled()

"""A look at an image is an image: its id loads what is shown, and its hash is that of those pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.looks import Look, Region, look_id
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.looked_at import LOOK_PIXELS, LookedAt, with_looks

QUARTER = Region(left=0.5, top=0, right=1, bottom=0.5)


@pytest.fixture
def images(tmp_path: Path) -> LookedAt:
    pixels = np.random.default_rng(5).integers(60, 120, (40, 60, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(tmp_path / "a.png")
    PILImage.new("RGB", (4, 4), "red").save(tmp_path / "a.png#xywh=percent:50,0,50,50", format="PNG")
    return LookedAt(FolderCollection(tmp_path))


def test_a_region_is_cut_from_the_picture(images: LookedAt) -> None:
    whole, seen = images.load("a.png"), look_id("a.png", Look(region=QUARTER))
    assert images.load(seen).tobytes() == whole.crop((30, 0, 60, 20)).tobytes()
    assert images.known_hash(seen) is None
    assert images.pixel_hash(seen) == images.known_hash(seen) == fingerprint_pixels(images.load(seen))
    assert images.pixel_hash("a.png") == images.known_hash("a.png") == fingerprint_pixels(whole)


def test_a_file_with_the_name_of_a_look_is_itself(images: LookedAt) -> None:
    name = "a.png#xywh=percent:50,0,50,50"
    assert images.load(name).size == (30, 20)
    assert images.load(look_id(name)).size == (4, 4)
    assert images.load(look_id(name, Look(region=QUARTER))).size == (2, 2)


def test_enhancing_removes_grain_and_stretches_each_channel(images: LookedAt) -> None:
    whole = np.asarray(images.load("a.png"))
    shown = np.asarray(images.load(look_id("a.png", Look(enhance=True, median=1))))
    assert (int(whole.min()), int(whole.max())) == (60, 119)
    assert (int(shown.min()), int(shown.max())) == (0, 255)
    denoised = np.asarray(images.load(look_id("a.png", Look(enhance=True, cutoff=None, median=5))))
    assert denoised.std() < whole.std() / 2


def test_what_a_look_shows_is_bounded(tmp_path: Path) -> None:
    PILImage.new("RGB", (3000, 2000)).save(tmp_path / "large.png")
    images = LookedAt(FolderCollection(tmp_path))
    for look in (Look(region=Region(left=0, top=0, right=1, bottom=0.9)), Look(enhance=True, median=1)):
        shown = images.load(look_id("large.png", look))
        assert 0.99 * LOOK_PIXELS <= shown.width * shown.height <= LOOK_PIXELS


def test_an_image_that_cannot_be_read_has_no_looks(images: LookedAt) -> None:
    with pytest.raises(BrokenImageError, match=r"'b\.png' is missing"):
        images.pixel_hash(look_id("b.png", Look(region=QUARTER)))


def test_images_are_wrapped_once(images: LookedAt) -> None:
    assert with_looks(images) is images

"""Near duplicates and bursts: found by perceptual hash and time, and shown as one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageFilter

from fieldscope.retrieval.perceptual_hash import distance, hash_of, perceptual_hash
from fieldscope.service.metadata.groups import BURST_BITS, NEAR_BITS, grouped
from tests.service.conftest import Run, World


def scene(seed: int) -> PILImage.Image:
    """A smooth picture, like no other."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return PILImage.fromarray(noise).resize((640, 480), PILImage.Resampling.BICUBIC)


def saved(image: PILImage.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: saved(image.resize((320, 240))),
        lambda image: saved(image, 30),
        lambda image: saved(image.point(lambda value: value * 0.8)),
        lambda image: saved(image.filter(ImageFilter.GaussianBlur(2))),
    ],
)
def test_copies_have_nearly_the_hash_of_their_original(copy: Callable[[PILImage.Image], bytes]) -> None:
    first, second, copied = hash_of(scene(1)), hash_of(scene(2)), perceptual_hash(copy(scene(1)))
    assert first is not None and second is not None and copied is not None
    assert distance(copied, first) <= NEAR_BITS
    assert distance(first, second) > BURST_BITS


def test_flat_pictures_have_no_hash_by_which_they_would_all_be_alike() -> None:
    assert hash_of(PILImage.new("RGB", (640, 480), "black")) is None
    half = PILImage.new("RGB", (640, 480), "black")
    half.paste("white", (0, 0, 320, 480))
    assert hash_of(half) is None


NOON = datetime(2023, 5, 14, 12)
FLIPPED_FEW, FLIPPED_SOME, FLIPPED_MANY = (1 << 8) - 1, (1 << 40) - 1, (1 << 90) - 1


@pytest.mark.parametrize(
    ("flipped", "seconds", "together"),
    [
        (0, 0, True),
        (FLIPPED_FEW, None, True),  # a copy whose time is gone
        (FLIPPED_FEW, 1, True),
        (FLIPPED_FEW, 3600, False),  # a fixed camera, an hour later
        (FLIPPED_SOME, 2, True),  # a burst
        (FLIPPED_SOME, 3, False),
        (FLIPPED_SOME, None, False),
        (FLIPPED_MANY, 1, False),  # another animal in front of another camera
    ],
)
def test_a_group_needs_like_pictures_and_no_other_time(flipped: int, seconds: int | None, together: bool) -> None:
    times = {"a/1.jpg": NOON} | ({} if seconds is None else {"a/2.jpg": NOON + timedelta(seconds=seconds)})
    groups = grouped({"a/1.jpg": 12345 << 100, "a/2.jpg": (12345 << 100) ^ flipped}, times)
    assert groups == ((("a/1.jpg", "a/2.jpg"),) if together else ())


def test_a_burst_is_of_one_folder() -> None:
    times = {"a/1.jpg": NOON, "b/1.jpg": NOON, "a/2.jpg": NOON + timedelta(seconds=1)}
    hashes = {"a/1.jpg": 0, "b/1.jpg": FLIPPED_SOME << 100, "a/2.jpg": FLIPPED_SOME}
    assert grouped(hashes, times) == (("a/1.jpg", "a/2.jpg"),)


def test_a_group_is_one_line_until_it_is_opened(run: Run, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "field"
    folder.mkdir()
    for name, data in {
        "one.jpg": saved(scene(1)),
        "one_small.jpg": saved(scene(1).resize((320, 240))),
        "two.jpg": saved(scene(2)),
    }.items():
        (folder / name).write_bytes(data)
    assert run("index", folder, "-o", tmp_path / "index").exit_code == 0
    line = ("search", "--index", tmp_path / "index", "--query", "a fox")
    closed, opened = run(*line).stdout, run(*line, "--open-groups").stdout
    assert "+1" in closed and ("one.jpg" in closed) != ("one_small.jpg" in closed)
    assert "+1" not in opened and "one.jpg" in opened and "one_small.jpg" in opened
    ranking = json.loads(run(*line, "--json").stdout)["ranking"]
    alike = {entry["image"]: set(entry["alike"]) for entry in ranking}
    assert alike["one.jpg"] == alike["one_small.jpg"] == {"one.jpg", "one_small.jpg"}
    assert alike["two.jpg"] == {"two.jpg"}

"""Uploaded pictures: content addressed, bounded on the disk, held while they are in use."""

from __future__ import annotations

import gc
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ImageTooLargeError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.images import DEFAULT_LIMITS, ImageLimits
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.pictures import CallImages, PictureStore
from tests.service.api.desk import BLUE, GREEN, RED, picture


def noise(seed: int, side: int = 20) -> bytes:
    """A picture that does not compress: 20 x 20 pixels take somewhat over 1200 bytes as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_goes_by_the_hash_of_its_pixels(tmp_path: Path) -> None:
    store = PictureStore(tmp_path / "kept", DEFAULT_LIMITS)
    image_id = store.add(picture(RED), "a")
    assert store.add(picture(RED, "BMP"), "b") == image_id
    assert files(store.folder) == [image_id]
    assert image_id.removesuffix(".png") == store.pixel_hash(image_id) == fingerprint_pixels(store.load(image_id))
    assert store.stored_bytes == (store.folder / image_id).stat().st_size
    assert PictureStore(store.folder, DEFAULT_LIMITS).load(image_id).getpixel((0, 0)) == (0xD0, 0x10, 0x10)


def test_what_is_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, DEFAULT_LIMITS, max_bytes=4_500)
    first, second, third = (store.add(noise(seed), "a") for seed in range(3))
    store.release([first, second, third])
    assert store.add(noise(0), "again") == first
    store.release([first])
    fourth = store.add(noise(3), "a")
    assert files(tmp_path) == sorted([first, third, fourth])
    assert store.stored_bytes <= 4_500
    assert store.add(noise(1), "again") == second  # which is written anew
    with pytest.raises(BrokenImageError, match="was deleted"):
        store.pixel_hash(third)


def test_what_a_call_holds_stays_and_then_goes(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, DEFAULT_LIMITS, max_bytes=4_500)
    call = CallImages(store, {})
    ids = [call.keep(noise(seed), "a") for seed in range(3)]
    other = CallImages(store, {})
    with pytest.raises(ApiError) as full:
        other.keep(noise(3), "a")
    assert (full.value.status, full.value.code) == (503, "pictures_full")
    assert full.value.retry_after
    assert [call.load(image_id).size for image_id in ids] == [(20, 20)] * 3
    del call
    gc.collect()
    assert other.keep(noise(3), "a").startswith("uploaded/")
    assert store.stored_bytes <= 4_500


def test_another_process_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    before = PictureStore(tmp_path, DEFAULT_LIMITS)
    old, new = before.add(noise(0), "a"), before.add(noise(1), "b")
    for age, image_id in enumerate((new, old)):
        os.utime(tmp_path / image_id, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / ".half.png").write_bytes(b"half")
    after = PictureStore(tmp_path, DEFAULT_LIMITS, max_bytes=before.stored_bytes + 100)
    assert files(tmp_path) == sorted([old, new])
    after.add(noise(2), "c")
    assert old not in files(tmp_path)
    assert new in files(tmp_path)


def test_a_file_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, DEFAULT_LIMITS)
    image_id = store.add(picture(RED), "a")
    (tmp_path / image_id).unlink()
    assert store.add(picture(RED), "a") == image_id
    assert files(tmp_path) == [image_id]
    assert store.stored_bytes == (tmp_path / image_id).stat().st_size


def test_a_picture_that_grows_as_png_can_still_be_read(tmp_path: Path) -> None:
    with PILImage.open(io.BytesIO(noise(0, 200))) as image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=30)
    limits = ImageLimits(max_bytes=len(buffer.getvalue()), max_pixels=40_000)
    image_id = PictureStore(tmp_path, limits).add(buffer.getvalue(), "a")
    assert (tmp_path / image_id).stat().st_size > limits.max_bytes
    assert PictureStore(tmp_path, limits).load(image_id).size == (200, 200)
    with pytest.raises(ImageTooLargeError):
        PictureStore(tmp_path, limits).add(noise(1, 300), "b")


def test_many_threads_keep_the_same_pictures(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, DEFAULT_LIMITS)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda seed: store.add(noise(seed % 4), "a"), range(64)))
    assert len(set(ids)) == len(files(tmp_path)) == len(store) == 4
    assert store.stored_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    store.release(ids)
    assert all(PictureStore(tmp_path, DEFAULT_LIMITS).load(image_id) for image_id in set(ids))


def test_a_disk_that_refuses_leaves_the_books_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PictureStore(tmp_path, DEFAULT_LIMITS)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ApiError, match="No space left"):
            store.add(picture(RED), "a")
    assert (len(store), store.stored_bytes, files(tmp_path)) == (0, 0, [])
    store.add(picture(RED), "a")


def test_a_call_has_uploads_and_collections_and_its_trace_finds_both_again(tmp_path: Path) -> None:
    wild = tmp_path / "wild"
    wild.mkdir()
    PILImage.new("RGB", (8, 6), GREEN).save(wild / "green.png")
    store = PictureStore(tmp_path / "kept", DEFAULT_LIMITS)
    call = CallImages(store, {"wild": FolderCollection(wild)})
    ids = ["fieldscope://wild/green.png", call.keep(picture(BLUE), "a")]
    assert sorted(call.ids()) == sorted(ids)
    again = reopen_collection(call.locator())
    for image_id in ids:
        assert again.pixel_hash(image_id) == call.pixel_hash(image_id) == fingerprint_pixels(call.load(image_id))
    for image_id in ("green.png", "fieldscope://zoo/green.png", "fieldscope://wild/../kept/a.png", "uploaded/../x.png"):
        with pytest.raises(BrokenImageError):
            call.load(image_id)

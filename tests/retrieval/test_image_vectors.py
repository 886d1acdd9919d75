"""Vectors of images that are kept: no image is encoded twice, and a file that changed is encoded again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fieldscope.retrieval.image_vectors
from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.image_vectors import image_vectors

NAMES = [f"{n}.png" for n in range(6)]


class Counting:
    """Mean colours; `seen` counts images, and after `most` of them it gives up."""

    dim = 3
    uses: frozenset[QueryPart] = frozenset({"text"})

    def __init__(self, fingerprint: str = "a" * 64, most: int = 100) -> None:
        self.fingerprint = fingerprint
        self.seen = 0
        self._most = most

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        raise NotImplementedError

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if self.seen + len(images) > self._most:
            raise KeyboardInterrupt
        self.seen += len(images)
        return np.stack([np.asarray(image).mean(axis=(0, 1)) / 255 for image in images]).astype(np.float32)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (40 * n, 0, 255)).save(folder / name)
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_an_image_is_encoded_once_under_each_encoder(pictures: Path, kept: Path) -> None:
    encoder = Counting()
    first = image_vectors(FolderCollection(pictures), [*NAMES[:4], *NAMES[:4]], encoder, kept)
    assert list(first) == NAMES[:4] and encoder.seen == 4
    assert first["2.png"] == pytest.approx([80 / 255, 0, 1])
    again = image_vectors(FolderCollection(pictures), NAMES, encoder, kept)
    assert encoder.seen == 6
    np.testing.assert_array_equal(again["2.png"], first["2.png"])
    other = Counting("b" * 64)
    image_vectors(FolderCollection(pictures), NAMES, other, kept)
    assert other.seen == 6


def test_a_stopped_process_loses_one_batch_at_most(pictures: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldscope.retrieval.image_vectors, "_BATCH", 2)
    with pytest.raises(KeyboardInterrupt):
        image_vectors(FolderCollection(pictures), NAMES, Counting(most=5), kept)
    seen: list[tuple[int, int]] = []
    encoder = Counting()
    image_vectors(FolderCollection(pictures), NAMES, encoder, kept, lambda done, total: seen.append((done, total)))
    assert encoder.seen == 2
    assert seen == [(4, 6), (6, 6)]


class Fatal(Counting):
    """Ends its own process, as `kill -9` would, before the third batch."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if self.seen >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(images)


def test_a_killed_process_loses_no_finished_batch(pictures: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldscope.retrieval.image_vectors, "_BATCH", 2)
    child = get_context("fork").Process(target=image_vectors, args=(FolderCollection(pictures), NAMES, Fatal(), kept))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    encoder = Counting()
    vectors = image_vectors(FolderCollection(pictures), NAMES, encoder, kept)
    assert encoder.seen == 2
    assert vectors["5.png"] == pytest.approx([200 / 255, 0, 1])


def test_a_copy_of_the_files_has_the_same_pixels(pictures: Path, kept: Path, tmp_path: Path) -> None:
    first = image_vectors(FolderCollection(pictures), NAMES, Counting(), kept)
    copy = shutil.copytree(pictures, tmp_path / "copy")
    for name in NAMES:
        os.utime(copy / name, (1, 1))
    encoder = Counting()
    again = image_vectors(FolderCollection(copy), NAMES, encoder, kept)
    assert encoder.seen == 0
    assert {name: vector.tolist() for name, vector in again.items()} == {n: v.tolist() for n, v in first.items()}


def test_a_file_that_changed_is_encoded_again(pictures: Path, kept: Path) -> None:
    image_vectors(FolderCollection(pictures), NAMES, Counting(), kept)
    Image.new("RGB", (9, 9), "black").save(pictures / "3.png")
    encoder = Counting()
    assert image_vectors(FolderCollection(pictures), NAMES, encoder, kept)["3.png"].tolist() == [0, 0, 0]
    assert encoder.seen == 1


def test_equal_pixels_under_two_ids_are_encoded_once(pictures: Path, kept: Path) -> None:
    shutil.copy(pictures / "1.png", pictures / "twin.png")
    encoder = Counting()
    vectors = image_vectors(FolderCollection(pictures), [*NAMES, "twin.png"], encoder, kept)
    assert encoder.seen == 6
    assert vectors["twin.png"].tolist() == vectors["1.png"].tolist()


def test_images_without_files_are_known_by_their_pixels(kept: Path) -> None:
    class Painted:
        def __init__(self) -> None:
            self.colour = "red"

        def load(self, image_id: str) -> Image.Image:
            return Image.new("RGB", (4, 4), self.colour)

        def pixel_hash(self, image_id: str) -> str:
            return fingerprint_pixels(self.load(image_id))

    images, encoder = Painted(), Counting()
    for expected in (1, 1):
        image_vectors(images, ["a"], encoder, kept)
        assert encoder.seen == expected
    images.colour = "blue"
    assert image_vectors(images, ["a"], encoder, kept)["a"].tolist() == [0, 0, 1]


def test_an_image_that_can_not_be_read_has_no_vector_and_the_others_are_kept(pictures: Path, kept: Path) -> None:
    (pictures / "2.png").write_bytes(b"\x89PNG no more")
    encoder = Counting()
    with pytest.raises(ConfigError, match=r"1 of 6 images can't be read, so they have no similarity \(the first is 2"):
        image_vectors(FolderCollection(pictures), NAMES, encoder, kept)
    Image.new("RGB", (8, 8)).save(pictures / "2.png")
    image_vectors(FolderCollection(pictures), NAMES, encoder, kept)
    assert encoder.seen == 6


def test_a_damaged_store_is_made_again(pictures: Path, kept: Path) -> None:
    image_vectors(FolderCollection(pictures), NAMES, Counting(), kept)
    (vectors,) = kept.glob("vectors-*.npy")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    encoder = Counting()
    image_vectors(FolderCollection(pictures), NAMES, encoder, kept)
    assert encoder.seen == 6

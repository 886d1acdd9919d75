"""Libraries are built in steps that survive, from whatever images are sound."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError, IndexMismatchError
from fieldscope.core.types import Query, Search
from fieldscope.retrieval import batches as module
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, Vectors, inputs_of
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.manifest import read_manifest
from fieldscope.retrieval.opening import open_collection
from fieldscope.retrieval.progress import Report

QUERY = Query(id="q", text="two red crabs on a beach")
SOUND = [f"{n}.png" for n in range(6)] + [f"below/{n}.png" for n in (6, 7, 8)]


class Counting:
    """The real encoder, counting images; after `allowed` of them it dies as `how` says."""

    def __init__(self, encoder: ClipEncoder, allowed: int = 1000, how: str = "raise") -> None:
        self.encoder, self.allowed, self.how = encoder, allowed, how
        self.encoded = 0
        self.fingerprint, self.dim, self.uses = encoder.fingerprint, encoder.dim, encoder.uses

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        return self.encoder.encode_query(inputs)

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        if self.encoded + len(images) > self.allowed:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.encoded += len(images)
        return self.encoder.encode_images(images)


def test_sound_images_are_indexed_and_broken_ones_listed(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    report = build_index(FolderCollection(photos), clip, tmp_path / "index", encoder_name="tiny", batch_size=4)
    assert (report.indexed, report.encoded, list(report.skipped)) == (9, 9, ["broken.jpg", "notes.txt"])
    assert "can't be read as an image" in report.skipped["broken.jpg"]
    assert json.loads((tmp_path / "index" / "skipped.json").read_text()) == report.skipped
    assert read_manifest(tmp_path / "index").encoder_name == "tiny"

    library = open_library(tmp_path / "index", clip)
    assert list(library.index.ids) == SOUND
    images = [library.collection.load(image_id) for image_id in SOUND]
    np.testing.assert_allclose(library.index.vectors, clip.encode_images(images), atol=1e-5)


def test_search_gives_the_nearest_images_first(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    build_index(FolderCollection(photos), clip, tmp_path / "index")
    found = open_library(tmp_path / "index", clip).search(Search(QUERY, 4))
    similarity = clip.encode_images([PILImage.open(photos / i) for i in SOUND]) @ clip.encode_query(inputs_of(QUERY))
    best = np.argsort(-similarity)[:4]
    assert [candidate.image_id for candidate in found] == [SOUND[i] for i in best]
    assert [candidate.prior for candidate in found] == pytest.approx([float(similarity[i]) for i in best], abs=1e-5)
    assert len(open_library(tmp_path / "index", clip).search(Search(QUERY, 100))) == 9


def test_progress_counts_every_image_and_starts_where_it_was(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    def watched() -> tuple[list[tuple[int, int]], Report]:
        seen: list[tuple[int, int]] = []
        return seen, lambda done, total: seen.append((done, total))

    seen, progress = watched()
    build_index(FolderCollection(photos), clip, tmp_path / "index", batch_size=4, progress=progress)
    assert seen[0] == (0, 10) and seen[-1] == (10, 10) and len(seen) == 4
    seen, progress = watched()
    build_index(FolderCollection(photos), clip, tmp_path / "index", progress=progress)
    assert seen == [(9, 10)]


def test_only_what_is_new_or_changed_is_encoded_again(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    build_index(FolderCollection(photos), clip, tmp_path / "index")
    PILImage.new("RGB", (5, 5), "red").save(photos / "new.png")
    PILImage.new("RGB", (99, 5), "blue").save(photos / "0.png")
    PILImage.new("RGB", (6, 6), "lime").save(photos / "broken.jpg")
    (photos / "1.png").unlink()
    encoder = Counting(clip)
    report = build_index(FolderCollection(photos), encoder, tmp_path / "index")
    assert (report.indexed, report.encoded, list(report.skipped), encoder.encoded) == (10, 3, ["notes.txt"], 3)
    library = open_library(tmp_path / "index", clip)
    assert "1.png" not in library.index.ids
    fresh = clip.encode_images([PILImage.open(photos / "0.png")])[0]
    np.testing.assert_allclose(library.index.vectors[list(library.index.ids).index("0.png")], fresh, atol=1e-5)


def test_an_interrupted_build_goes_on_where_it_stopped(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build_index(FolderCollection(photos), Counting(clip, allowed=3), folder, batch_size=2)
        assert not (folder / "manifest.json").exists()
    rest = Counting(clip)
    report = build_index(FolderCollection(photos), rest, folder, batch_size=2)
    assert (report.indexed, report.encoded, rest.encoded) == (9, 5, 5)
    whole = tmp_path / "whole"
    build_index(FolderCollection(photos), clip, whole)
    np.testing.assert_allclose(
        open_library(folder, clip).index.vectors, open_library(whole, clip).index.vectors, atol=1e-6
    )
    assert not list(folder.glob("shards-*"))


def test_a_killed_build_goes_on_where_it_stopped(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"

    def build() -> None:
        build_index(FolderCollection(photos), Counting(clip, allowed=6, how="kill"), folder, batch_size=2)

    child = multiprocessing.get_context("fork").Process(target=build)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    rest = Counting(clip)
    assert build_index(FolderCollection(photos), rest, folder, batch_size=2).indexed == 9
    assert rest.encoded == 3


def test_a_death_while_saving_leaves_the_old_index(
    photos: Path, clip: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    build_index(FolderCollection(photos), clip, folder)
    PILImage.new("RGB", (5, 5), "red").save(photos / "new.png")

    def die(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fieldscope.retrieval.manifest.replace_file", die)
        build_index(FolderCollection(photos), clip, folder)
    assert len(open_library(folder, clip).index.ids) == 9
    rest = Counting(clip)
    assert build_index(FolderCollection(photos), rest, folder).indexed == 10
    assert rest.encoded == 0
    assert len(open_library(folder, clip).index.ids) == 10
    assert len(list(folder.glob("vectors-*"))) == 1


def test_a_damaged_shard_or_index_is_encoded_again(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build_index(FolderCollection(photos), Counting(clip, allowed=6), folder, batch_size=2)
    shard, cut, _ = sorted(folder.glob("shards-*/*.npz"))
    with np.load(shard) as content:
        vectors = content["vectors"].tobytes()
    shard.write_bytes(shard.read_bytes().replace(vectors, bytes(len(vectors))))
    cut.write_bytes(cut.read_bytes()[:50])
    rest = Counting(clip)
    build_index(FolderCollection(photos), rest, folder)
    assert rest.encoded == 7

    (folder / read_manifest(folder).vectors_name).write_bytes(b"")
    with pytest.raises(IndexMismatchError, match="build it again"):
        open_library(folder, clip)
    build_index(FolderCollection(photos), clip, folder)
    assert len(open_library(folder, clip).index.ids) == 9


def test_another_encoders_index_is_neither_searched_nor_overwritten(
    photos: Path, clip: ClipEncoder, other_clip: ClipEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    build_index(FolderCollection(photos), clip, folder, encoder_name="ours")
    with pytest.raises(IndexMismatchError, match=r"'ours'.*use that encoder"):
        open_library(folder, other_clip)
    with pytest.raises(IndexMismatchError, match="into another folder"):
        build_index(FolderCollection(photos), other_clip, folder)
    assert len(open_library(folder, clip).search(Search(QUERY, 3))) == 3


def test_a_collection_without_a_sound_image_is_an_error(clip: ClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of 1 images can be read; see .*skipped\.json"):
        build_index(open_collection([tmp_path / "photos"]), clip, tmp_path / "index")
    assert list(json.loads((tmp_path / "index" / "skipped.json").read_text())) == ["a.png"]


def test_searching_needs_no_images_but_looking_does(photos: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    build_index(FolderCollection(photos), clip, tmp_path / "index")
    library = open_library(tmp_path / "index", clip)
    (photos / "3.png").unlink()
    with pytest.raises(BrokenImageError, match=r"'3\.png'"):
        library.collection.load("3.png")
    photos.rename(photos.with_name("moved"))
    library = open_library(tmp_path / "index", clip)
    assert len(library.search(Search(QUERY, 3))) == 3
    with pytest.raises(ConfigError, match="is not a folder"):
        _ = library.collection


def test_large_pictures_make_small_batches(
    photos: Path, clip: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 3 * 30 * 20 * 2)
    monkeypatch.setattr(module, "_READERS", 1)
    seen: list[int] = []
    build_index(FolderCollection(photos), clip, tmp_path / "index", progress=lambda done, total: seen.append(done))
    assert max(np.diff(seen)) <= 3

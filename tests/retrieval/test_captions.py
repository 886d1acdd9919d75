"""Captions beside an index: kept in one step, checked when they are read, and dropped where the image has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.types import Query, Search
from fieldscope.retrieval.captions import read_captions, write_captions
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.manifest import read_manifest

CAPTIONS = {"3.png": "a red crab", "below/6.png": " two crabs on the beach ", "0.png": "a red crab"}


@pytest.fixture
def folder(photos: Path, clip: ClipEncoder, tmp_path: Path) -> Path:
    build_index(FolderCollection(photos), clip, tmp_path / "index", encoder_name="tiny")
    return tmp_path / "index"


def test_captions_are_read_as_they_were_written(folder: Path, clip: ClipEncoder) -> None:
    assert read_captions(folder, clip) is None
    assert open_library(folder, clip).captions is None
    seen: list[tuple[int, int]] = []
    written = write_captions(folder, CAPTIONS, clip, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]  # a text is encoded once
    for captions in (written, read_captions(folder, clip), open_library(folder, clip).captions):
        assert captions is not None
        assert list(captions.texts.items()) == [
            ("3.png", "a red crab"), ("below/6.png", "two crabs on the beach"), ("0.png", "a red crab"),
        ]  # fmt: skip
        for text, vector in zip(captions.texts.values(), captions.vectors, strict=True):
            np.testing.assert_array_equal(vector, clip.encode_query(QueryInputs(text)))


def test_captions_change_what_is_found(folder: Path, clip: ClipEncoder) -> None:
    query = Query(id="q", text="a red crab")
    write_captions(folder, {"below/8.png": "a red crab"}, clip)
    best = open_library(folder, clip).search(Search(query, 1, caption_weight=1.0))
    assert best[0].image_id == "below/8.png"
    assert best[0].prior == pytest.approx(1.0, abs=1e-5)


def test_new_captions_replace_the_old(folder: Path, clip: ClipEncoder) -> None:
    write_captions(folder, CAPTIONS, clip)
    write_captions(folder, {"1.png": "a fish", "2.png": "  "}, clip)
    captions = read_captions(folder, clip)
    assert captions is not None and captions.texts == {"1.png": "a fish"}


def test_a_caption_needs_an_image_and_words(folder: Path, clip: ClipEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'broken\.jpg' has a caption and is not in the index"):
        write_captions(folder, {"broken.jpg": "a crab"}, clip)
    with pytest.raises(ConfigError, match="no captions"):
        write_captions(folder, {"1.png": ""}, clip)
    with pytest.raises(IndexMismatchError, match="holds no index"):
        write_captions(tmp_path / "nowhere", CAPTIONS, clip)
    assert read_captions(folder, clip) is None


def test_an_image_that_was_indexed_anew_after_a_change_has_no_caption(
    folder: Path, photos: Path, clip: ClipEncoder
) -> None:
    write_captions(folder, CAPTIONS, clip)
    PILImage.new("RGB", (77, 5), "blue").save(photos / "3.png")
    (photos / "0.png").unlink()
    assert len((read_captions(folder, clip) or pytest.fail("none")).texts) == 3  # the index still has the old pictures
    build_index(FolderCollection(photos), clip, folder)
    captions = read_captions(folder, clip)
    assert captions is not None and list(captions.texts) == ["below/6.png"]
    assert captions.vectors.shape == (1, clip.dim)
    PILImage.new("RGB", (78, 5), "blue").save(photos / "below" / "6.png")
    build_index(FolderCollection(photos), clip, folder)
    assert read_captions(folder, clip) is None


def test_another_encoders_captions_are_refused(folder: Path, clip: ClipEncoder, other_clip: ClipEncoder) -> None:
    with pytest.raises(IndexMismatchError, match="use that encoder"):
        write_captions(folder, CAPTIONS, other_clip)
    write_captions(folder, CAPTIONS, clip)
    with pytest.raises(IndexMismatchError, match="make them again with `fieldscope caption`"):
        read_captions(folder, other_clip)


@pytest.mark.parametrize("what", ["vectors", "manifest", "texts"])
def test_damaged_captions_are_refused(folder: Path, clip: ClipEncoder, what: str) -> None:
    write_captions(folder, CAPTIONS, clip)
    manifest = folder / "captions" / "manifest.json"
    if what == "vectors":
        path = folder / "captions" / read_manifest(folder / "captions").vectors_name
        path.write_bytes(path.read_bytes()[:-4] + b"oops")
    elif what == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace("a red crab", "a blue fish"))
    with pytest.raises(IndexMismatchError, match="remove that folder"):
        open_library(folder, clip)

"""Regions are proposed where texts are near, and only where the model would see more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, VocabularyError
from fieldscope.core.looks import Region
from fieldscope.core.types import Query, Search
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.regions import LEAST_GAIN, MOST_SHARED, MOST_TILES, TileRegions, gain, tiles

CORNER = (0.9, 0.85)  # where the red square is
READS = 100 * 100


class Colours:
    """An encoder for which a picture is its mean colour, and knows three words."""

    fingerprint = "c" * 64
    dim = 3
    uses: frozenset[QueryPart] = frozenset({"text"})

    def __init__(self) -> None:
        self.encoded = 0

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        if inputs.text not in ("red", "green", "blue"):
            raise VocabularyError(f"{inputs.text} is unknown; use another word")
        return np.eye(3, dtype=np.float32)[("red", "green", "blue").index(inputs.text)]

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        self.encoded += len(images)
        means = np.array([np.asarray(image.convert("RGB"), np.float32).mean(axis=(0, 1)) + 1 for image in images])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, side in (("large.png", 900), ("small.png", 90)):
        image = PILImage.new("RGB", (side * 4 // 3, side), "blue")
        image.paste("red", tuple(int(c * s) for c, s in zip(CORNER, image.size, strict=True)) + image.size)  # type: ignore[arg-type]
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        image.save(folder / name)
    return tmp_path / "photos"


def test_the_nearest_tiles_come_first_and_lie_apart(photos: Path, tmp_path: Path) -> None:
    regions = TileRegions(FolderCollection(photos), Colours, tmp_path, READS)
    proposals = regions.propose(["red"], ["large.png"], most=3)["large.png"]
    similarities = [proposal.similarity for proposal in proposals]
    assert similarities == sorted(similarities, reverse=True)
    best = proposals[0].region
    assert best.left < CORNER[0] < best.right
    assert best.top < CORNER[1] < best.bottom
    for i, proposal in enumerate(proposals):
        assert all(proposal.region.shared(other.region) <= MOST_SHARED for other in proposals[:i])


def test_a_region_is_proposed_only_where_the_model_would_see_more(photos: Path, tmp_path: Path) -> None:
    encoder = Colours()
    collection = FolderCollection(photos)
    ids = ["large.png", "small.png", "missing.png"]
    assert TileRegions(collection, lambda: encoder, tmp_path, READS).propose(["red"], ids, 2).keys() == {"large.png"}
    assert TileRegions(collection, lambda: encoder, None, 10**7).propose(["red"], ids, 2) == {}
    before = encoder.encoded
    pays_in_any_case = TileRegions(collection, lambda: encoder, None, 10**7).propose(["red"], ids, 2, least_gain=0)
    assert encoder.encoded > before
    assert pays_in_any_case.keys() == {"large.png", "small.png"} - ({"small.png"} if not tiles(120, 90) else set())


def test_tiles_are_encoded_once_and_again_when_the_image_changes(photos: Path, tmp_path: Path) -> None:
    encoder = Colours()

    def propose() -> object:
        regions = TileRegions(FolderCollection(photos), lambda: encoder, tmp_path, READS)
        return regions.propose(["red", "green"], ["large.png"], 2)

    first, made = propose(), encoder.encoded
    assert made == len(tiles(1200, 900))
    assert propose() == first
    assert encoder.encoded == made
    (tmp_path / "tiles.sqlite").write_bytes(b"no database" * 100)
    propose()
    assert encoder.encoded == 2 * made, "a damaged file is no reason to stop"
    (tmp_path / "tiles.sqlite").unlink()
    propose()
    PILImage.new("RGB", (1200, 900), "green").save(photos / "large.png")
    propose()
    assert encoder.encoded == 4 * made


def test_texts_that_the_encoder_cannot_read_are_left_out(photos: Path, tmp_path: Path) -> None:
    encoder = Colours()
    regions = TileRegions(FolderCollection(photos), lambda: encoder, tmp_path, READS)
    assert regions.propose(["a fox"], ["large.png"], 2) == {}
    assert encoder.encoded == 0
    both = regions.propose(["a fox", "red"], ["large.png"], 2)
    assert both == regions.propose(["red"], ["large.png"], 2)


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_tiles_cover_the_picture(width: int, height: int) -> None:
    made = tiles(width, height)
    assert len(made) <= MOST_TILES
    if made:
        assert min(tile.left for tile in made) == min(tile.top for tile in made) == 0
        assert max(tile.right for tile in made) == max(tile.bottom for tile in made) == 1
        assert all(abs(tile.width * width - tile.height * height) < 2 for tile in made), "they are squares"


def test_gain_counts_the_pixels_of_the_region_that_the_model_sees() -> None:
    quarter = Region(left=0, top=0, right=0.5, bottom=0.5)
    assert gain(quarter, (6000, 4000), 112 * 112) == pytest.approx(4)
    assert gain(quarter, (500, 375), 1_000_000) == pytest.approx(1), "the model sees all of its pixels as it is"
    assert gain(quarter, (1200, 1000), 1_000_000) == pytest.approx(1.2)
    assert gain(Region(left=0, top=0, right=0.8, bottom=0.8), (6000, 4000), 1_000_000) > LEAST_GAIN


def test_an_image_is_as_similar_as_its_best_tile(photos: Path, tmp_path: Path) -> None:
    encoder, folder = Colours(), tmp_path / "index"
    PILImage.new("RGB", (1200, 900), (30, 0, 200)).save(photos / "purple.png")
    collection = FolderCollection(photos)
    build_index(collection, encoder, folder)  # type: ignore[arg-type]
    red = Query(id="q", text="red")
    as_they_are = open_library(folder, encoder).search(Search(red, 3))  # type: ignore[arg-type]
    assert as_they_are[0].image_id == "purple.png"
    with pytest.raises(ConfigError, match="the index has no tiles"):
        open_library(folder, encoder).search(Search(red, 3, tiles=True))  # type: ignore[arg-type]
    TileRegions(collection, lambda: encoder, folder, READS).encode(collection.ids(), lambda *_: None)
    library = open_library(folder, encoder)  # type: ignore[arg-type]
    by_tiles = library.search(Search(red, 3, tiles=True))
    assert by_tiles[0].image_id == "large.png"
    assert by_tiles[0].prior > as_they_are[0].prior
    assert library.search(Search(red, 3)) == as_they_are
    published = replace(library, folder=None)
    with pytest.raises(ConfigError, match="published embeddings have no tiles"):
        published.search(Search(red, 3, tiles=True))
    queried = library.search(Search(red, 3, ("green",), prior="query", tiles=True))
    assert {each.image_id: each.prior for each in queried} == pytest.approx({e.image_id: e.prior for e in by_tiles})

"""`fieldscope index --tiles`, and strategies that search by tiles."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.service.conftest import FOX, Run, World

BY_TILES = "name: by-tiles\ndescription: An image is as similar as its best tile.\nretrieve: {tiles: true}\n" + (
    "fusion: {method: prior}\n"
)


@pytest.fixture
def frames(world: World, tmp_path: Path) -> Path:
    """A fox that is small in its frame, and two pictures without one that are as large."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, side in (("000009.png", 90), ("000003.png", 448), ("000005.png", 448)):
        frame = PILImage.new("RGB", (448, 448), (120, 150, 110))
        with PILImage.open(world.pictures / name) as picture:
            frame.paste(picture.convert("RGB").resize((side, side)), (448 - side, 448 - side))
        frame.save(folder / name)
    return folder


def prior_of(said: str, image_id: str) -> float:
    (prior,) = [entry["prior"] for entry in json.loads(said)["ranking"] if entry["image"] == image_id]
    return float(prior)


def test_tiles_are_made_once_and_small_subjects_count_for_more(
    run: Run, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fieldscope.retrieval.clip import ClipEncoder

    index, strategy = tmp_path / "index", tmp_path / "by-tiles.yaml"
    strategy.write_text(BY_TILES, encoding="utf-8")
    search = ("search", "--index", index, "--query", FOX, "--rerank", "--strategy", strategy, "--json")
    assert run("index", frames, "-o", index).exit_code == 0
    refused = run(*search)
    assert refused.exit_code == 1
    assert "add them with `index --tiles`" in refused.stderr

    assert run("index", frames, "-o", index, "--tiles").exit_code == 0
    with closing(sqlite3.connect(index / "tiles.sqlite")) as database:
        assert database.execute("select count(*) from tiles").fetchone() == (3,)
    found = run(*search)
    assert found.exit_code == 0, found.stderr
    as_they_are = run("search", "--index", index, "--query", FOX, "--json")
    assert prior_of(found.stdout, "000009.png") > prior_of(as_they_are.stdout, "000009.png")

    monkeypatch.setattr(ClipEncoder, "encode_images", None)  # nothing is left to encode
    again = run("index", frames, "-o", index, "--tiles")
    assert again.exit_code == 0, again.stderr


def test_images_without_an_index_have_no_tiles_to_rank_by(run: Run, frames: Path, tmp_path: Path) -> None:
    strategy = tmp_path / "by-tiles.yaml"
    strategy.write_text(BY_TILES, encoding="utf-8")
    refused = run("rerank", "--images", frames, "--query", FOX, "--strategy", strategy)
    assert refused.exit_code == 1
    assert "which needs an index with tiles; index the images with `fieldscope index --tiles`" in refused.stderr

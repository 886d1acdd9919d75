"""Several collections as one, opened again even where a part is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.retrieval.collection import Collection, FolderCollection
from fieldscope.retrieval.opening import reopen_collection
from fieldscope.retrieval.union import UnionCollection


@pytest.fixture
def union(tmp_path: Path) -> UnionCollection:
    for name, size in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        PILImage.new("RGB", (size, size)).save(tmp_path / name / "x.png")
    return UnionCollection({"p/": FolderCollection(tmp_path / "a"), "p/q/": FolderCollection(tmp_path / "b")})


def test_the_longest_prefix_counts(union: UnionCollection) -> None:
    assert isinstance(union, Collection)
    assert union.ids() == ("p/q/x.png", "p/x.png")
    assert len(union) == 2
    assert [union.load(image_id).width for image_id in union.ids()] == [3, 2]
    assert union.pixel_hash("p/x.png") != union.pixel_hash("p/q/x.png")
    assert union.stamp("p/x.png")
    with pytest.raises(BrokenImageError, match="in none of 2 collections"):
        union.load("x.png")


def test_a_part_that_is_gone_leaves_the_others(union: UnionCollection, tmp_path: Path) -> None:
    locator = union.locator()
    assert reopen_collection(locator).ids() == union.ids()
    shutil.rmtree(tmp_path / "b")
    rest = reopen_collection(locator)
    assert rest.ids() == ("p/x.png",)
    with pytest.raises(BrokenImageError):
        rest.load("p/q/x.png")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(ConfigError, match="is not a folder"):
        reopen_collection(locator)

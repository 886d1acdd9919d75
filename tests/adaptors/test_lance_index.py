"""LanceDB finds what FAISS finds, and takes more vectors without being written again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.faiss_index import FaissIndex
from fieldscope.retrieval.index import INDEXES
from fieldscope.retrieval.lance_index import LanceIndex

pytestmark = pytest.mark.adaptors

DIM = 32


def unit(rows: int, seed: int = 0, dim: int = DIM) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def names(count: int, first: int = 0) -> list[str]:
    return [f"folder/it's image {row}" for row in range(first, first + count)]


@pytest.mark.parametrize("share", [None, 0.8, 0.1, 0.0])
def test_it_finds_what_faiss_finds_with_and_without_filters(share: float | None) -> None:
    vectors, queries = unit(2000), unit(7, seed=1)
    allowed = None if share is None else np.random.default_rng(2).random(2000) < share
    expected, ids = FaissIndex(names(2000), vectors).search(queries, 25, allowed)
    scores, found = INDEXES.load("lancedb")(names(2000), vectors).search(queries, 25, allowed)
    assert found == ids
    np.testing.assert_allclose(scores, expected, atol=2e-7)


def test_an_index_of_100_000_takes_1_000_more_without_being_built_again(tmp_path: Path) -> None:
    vectors, more, queries = unit(100_000, dim=8), unit(1000, seed=5, dim=8), unit(3, seed=1, dim=8)
    index = LanceIndex.open(str(tmp_path), 8)
    index.append(names(100_000), vectors)
    before, written = index.version, {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.lance")}
    index.append(names(1000, 100_000), more)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.lance") if path in written} == written
    grown = LanceIndex.open(str(tmp_path))
    assert len(grown) == 101_000
    faiss = FaissIndex(names(101_000), np.concatenate([vectors, more]))
    last, most = np.arange(101_000) >= 90_000, np.random.default_rng(2).random(101_000) < 0.7
    for allowed in (None, last, most):
        (scores, ids), (expected, expected_ids) = (index.search(queries, 50, allowed) for index in (grown, faiss))
        assert ids == expected_ids
        np.testing.assert_allclose(scores, expected, atol=2e-7)
    assert len(LanceIndex.open(str(tmp_path), version=before)) == 100_000
    assert before in grown.versions()


def test_a_librarys_table_follows_its_vectors(tmp_path: Path) -> None:
    vectors = unit(60)
    LanceIndex.kept(tmp_path, names(50), vectors[:50])
    version = LanceIndex.kept(tmp_path, names(50), vectors[:50]).version
    assert LanceIndex.kept(tmp_path, names(50), vectors[:50]).version == version, "nothing changed"
    changed = vectors[[3, 0, *range(10, 60)]].copy()
    changed[1] = unit(1, seed=9)
    ids = [names(60)[row] for row in (3, 0, *range(10, 60))]
    index = LanceIndex.kept(tmp_path, ids, changed)
    assert list(index.ids) == ids
    np.testing.assert_array_equal(index.vectors_of(ids), changed)
    allowed = np.arange(len(ids)) % 3 == 0
    for choice in (None, allowed):
        assert index.search(changed[:4], 9, choice)[1] == FaissIndex(ids, changed).search(changed[:4], 9, choice)[1]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no vectors"):
        LanceIndex.open(str(tmp_path))
    index = LanceIndex.open(str(tmp_path), DIM)
    assert index.search(unit(2), 3)[1] == [[], []]
    index.append(names(3), unit(3))
    with pytest.raises(IndexMismatchError, match="in the table already"):
        index.append(names(1), unit(1))
    with pytest.raises(IndexMismatchError, match="length 32"):
        index.append(["new"], unit(1, dim=8))
    with pytest.raises(IndexMismatchError, match="length 32, and not 8"):
        LanceIndex.open(str(tmp_path), 8)
    with pytest.raises(ConfigError, match="'nowhere' is none of the 3"):
        index.vectors_of(["nowhere"])

"""A large index finds what exact search finds, with filters and after interruptions, and refuses what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.retrieval import large_index
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.id_file import IdFile, write_ids
from fieldscope.retrieval.index_plan import IndexPlan, index_memory, plan_index
from fieldscope.retrieval.large_build import Owner, VectorSource, build_large
from fieldscope.retrieval.large_index import LargeIndex
from fieldscope.retrieval.large_manifest import LargeManifest, read_large

COUNT, DIM, K = 1500, 16, 10
PLAN = IndexPlan("pq", 0, lists=8, code_bytes=4)
IDS = [f"folder {row % 7}/image ä{row}.jpg" for row in range(COUNT)]
OWNER = Owner("encoder", "ours", {"collection": {"kind": "none"}})


def spread(count: int, seed: int) -> Vectors:
    """Unit vectors with variances that fall."""
    drawn = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    drawn *= np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    unit: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


VECTORS, QUERIES = spread(COUNT, 0), spread(5, 1)


def source(name: str = "one", fails_at: int = COUNT, begun: list[int] | None = None) -> VectorSource:
    def blocks(first: int) -> Iterator[Vectors]:
        if begun is not None:
            begun.append(first)
        for start in range(first, COUNT, 400):
            if start >= fails_at:
                raise KeyboardInterrupt
            yield VECTORS[start : start + 400]

    return VectorSource(IDS, DIM, name, blocks)


def built(folder: Path, plan: IndexPlan = PLAN) -> LargeManifest:
    return build_large(folder, source(), plan, OWNER)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LargeIndex:
    folder = tmp_path_factory.mktemp("large")
    built(folder)
    return LargeIndex(folder)


@pytest.fixture
def approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches go through the lists, although so few vectors would all be scored."""
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)


def exact(allowed: Any = None) -> list[list[str]]:
    scores = QUERIES @ VECTORS.astype(np.float16).astype(np.float32).T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return [[IDS[row] for row in rows] for rows in np.argsort(-scores, axis=1, kind="stable")[:, :K]]


def shared(found: list[list[str]], expected: list[list[str]]) -> float:
    hits = sum(len(set(some) & set(others)) for some, others in zip(found, expected, strict=True))
    return hits / sum(map(len, expected))


@pytest.mark.usefixtures("approximate")
def test_codes_find_candidates_and_vectors_rank_them(index: LargeIndex) -> None:
    scores, ids = index.search(QUERIES, K)
    assert shared(ids, exact()) >= 0.9
    assert index.manifest.recall.recall >= 0.98 > index.manifest.recall.without_rescoring
    for query, row, found in zip(QUERIES, scores, ids, strict=True):
        np.testing.assert_allclose(row, index.vectors_of(found) @ query, atol=1e-6)
        assert (np.diff(row) <= 0).all()
    np.testing.assert_allclose(index.vectors_of(IDS[5:7]), VECTORS[5:7], atol=1e-3)


@pytest.mark.usefixtures("approximate")
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_a_filter_is_part_of_the_search(index: LargeIndex, share: float) -> None:
    allowed = np.random.default_rng(3).random(COUNT) < share
    scores, ids = index.search(QUERIES, K, allowed)
    assert scores.shape == (5, K)
    assert {name for found in ids for name in found} <= {IDS[row] for row in np.flatnonzero(allowed)}
    assert shared(ids, exact(allowed)) >= 0.9


def test_few_vectors_are_searched_exactly(index: LargeIndex) -> None:
    allowed = np.arange(COUNT) % 100 == 0
    assert index.search(QUERIES, K, allowed)[1] == exact(allowed)
    assert index.search(QUERIES, K)[1] == exact()
    assert index.search(QUERIES, 40, allowed)[0].shape == (5, 15)
    assert index.search(QUERIES, K, np.zeros(COUNT, np.bool_))[1] == [[]] * 5
    with pytest.raises(IndexMismatchError, match="give a boolean for each"):
        index.search(QUERIES, K, np.ones(COUNT - 1, np.bool_))
    with pytest.raises(ConfigError, match="'nowhere' is none of the 1,500"):
        index.vectors_of([IDS[0], "nowhere"])


def test_scalar_codes_serve_as_well(tmp_path: Path, approximate: None) -> None:
    assert built(tmp_path, IndexPlan("sq", 0, lists=8)).codec == "sq"
    assert shared(LargeIndex(tmp_path).search(QUERIES, K)[1], exact()) >= 0.9


def test_an_interrupted_build_continues(index: LargeIndex, tmp_path: Path) -> None:
    begun: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        build_large(tmp_path, source(fails_at=800, begun=begun), PLAN, OWNER)
    with (tmp_path / "vectors.f16").open("ab") as stream:
        stream.write(b"half a row")  # where the process was killed
    manifest = build_large(tmp_path, source(begun=begun), PLAN, OWNER)
    assert begun == [0, 800]
    assert manifest == index.manifest
    assert LargeIndex(tmp_path).search(QUERIES, K)[1] == index.search(QUERIES, K)[1]
    assert build_large(tmp_path, source(begun=begun), PLAN, OWNER) == manifest
    assert begun == [0, 800], "a complete index stays"


def test_codes_that_a_killed_build_left_are_not_made_again(
    tmp_path: Path, index: LargeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path)
    (tmp_path / "large.json").unlink()
    with (tmp_path / "codes.u8").open("r+b") as stream:
        stream.truncate(4 * 700 + 1)
    encode, encoded = large_index.Quantiser.encode, []
    monkeypatch.setattr(
        large_index.Quantiser, "encode", lambda self, some: encoded.append(len(some)) or encode(self, some)
    )
    assert built(tmp_path) == index.manifest
    assert sum(encoded) == COUNT - 700


def test_another_source_starts_over(tmp_path: Path) -> None:
    built(tmp_path)
    begun: list[int] = []
    assert build_large(tmp_path, source("two", begun=begun), PLAN, OWNER).source == "two"
    assert begun == [0]


@pytest.mark.parametrize("name", ["vectors.f16", "codes.u8", "quantiser.npz", "ids.txt", "large.json"])
def test_damage_is_refused(name: str, index: LargeIndex, tmp_path: Path) -> None:
    built(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(IndexMismatchError, match="again"):
        LargeIndex(tmp_path)


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    short = VectorSource(IDS, DIM, "short", lambda first: iter([VECTORS[:30]]))
    with pytest.raises(IndexMismatchError, match="1,500 ids came with 30 vectors"):
        build_large(tmp_path, short, PLAN, OWNER)
    broken = VectorSource(IDS, DIM, "broken", lambda first: iter([VECTORS * np.inf]))
    with pytest.raises(IndexMismatchError, match="not finite"):
        build_large(tmp_path, broken, PLAN, OWNER)
    with pytest.raises(IndexMismatchError, match="can't be read"):
        read_large(tmp_path)


def test_ids_lie_in_files(tmp_path: Path) -> None:
    names = ["b", "", "ä/ö.jpg", "a" * 300, "\udce4"]
    ids = write_ids(tmp_path, iter(names))
    assert list(ids) == names == list(IdFile(tmp_path))
    assert [ids.row(name) for name in names] == [0, 1, 2, 3, 4]
    assert (ids[-1], ids[1:3], len(ids)) == (names[-1], names[1:3], 5)
    assert "c" not in ids and 3 not in ids and ids.row("aa") is None
    with pytest.raises(IndexError):
        ids[5]
    with pytest.raises(IndexMismatchError, match="'b' comes twice"):
        write_ids(tmp_path, ["b", "c", "b"])


def test_the_index_is_chosen_by_size_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [plan_index(count, 1024, 3_000_000_000).kind for count in (10_000, 700_000, 1_000_000, 5_000_000)]
    assert kinds == ["flat", "flat", "sq", "pq"]
    assert plan_index(5_000_000, 1024, 3_000_000_000).code_bytes == 64
    assert plan_index(5_000_000, 1024, 400_000_000).code_bytes == 16
    assert plan_index(5_000_000, 1024, 64_000_000_000).kind == "flat"
    with pytest.raises(ConfigError, match=r"takes 0\.3 GB at least, and may take 0\.1 GB"):
        plan_index(5_000_000, 1024, 100_000_000)
    monkeypatch.setenv("FIELDSCOPE_INDEX_MEMORY", "0.5")
    assert index_memory() == 500_000_000
    monkeypatch.setenv("FIELDSCOPE_INDEX_MEMORY", "much")
    with pytest.raises(ConfigError, match="set it to a number of gigabytes"):
        index_memory()

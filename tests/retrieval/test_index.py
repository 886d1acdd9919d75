"""Both indexes find the same, remember their encoder, and refuse what is damaged."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import Vectors
from fieldscope.retrieval.faiss_index import FaissIndex
from fieldscope.retrieval.index import ExactIndex, Index
from fieldscope.retrieval.manifest import read_index, read_manifest, write_index

KINDS: list[Any] = [ExactIndex, FaissIndex]


def unit(rows: int, dim: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def names(count: int) -> list[str]:
    return [f"image {n}" for n in range(count)]


def saved(folder: Path, clip: ClipEncoder, kind: Any = ExactIndex) -> Index:
    index: Index = kind(names(7), unit(7, clip.dim))
    write_index(folder, names(7), unit(7, clip.dim), clip.fingerprint)
    return index


def loaded(kind: Any, folder: Path, encoder: ClipEncoder) -> Any:
    manifest, vectors = read_index(folder, encoder)
    return kind(manifest.ids, vectors)


@settings(deadline=None)
@given(rows=st.integers(1, 60), queries=st.integers(1, 5), k=st.integers(0, 70), seed=st.integers(0, 10_000))
def test_exact_and_faiss_agree_with_a_plain_sort(rows: int, queries: int, k: int, seed: int) -> None:
    vectors, wanted = unit(rows, 8, seed), unit(queries, 8, seed + 1)
    for kind in KINDS:
        scores, ids = kind(names(rows), vectors).search(wanted, k)
        assert scores.shape == (queries, min(k, rows))
        for query, row, found in zip(wanted, scores, ids, strict=True):
            plain = sorted(
                ((float(query @ v), name) for v, name in zip(vectors, names(rows), strict=True)), reverse=True
            )
            np.testing.assert_allclose(row, [score for score, _ in plain[:k]], atol=1e-5)
            assert found == [name for _, name in plain[:k]]


def test_of_equal_scores_the_earlier_image_comes_first() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), [4, 1], axis=0)
    for kind in KINDS:
        _, ids = kind(list("dcbae"), vectors).search(vectors[:1], 4)
        assert ids == [list("dcba")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_saved_and_loaded_by_either_kind(kind: Any, clip: ClipEncoder, tmp_path: Path) -> None:
    index = saved(tmp_path, clip, kind)
    for loader in KINDS:
        other = loaded(loader, tmp_path, clip)
        assert list(other.ids) == list(index.ids)
        assert read_manifest(tmp_path).encoder_fingerprint == clip.fingerprint
        np.testing.assert_array_equal(other.vectors, unit(7, clip.dim))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", read_manifest(tmp_path).vectors_name]


def test_saving_again_replaces_all(clip: ClipEncoder, tmp_path: Path) -> None:
    saved(tmp_path, clip)
    write_index(tmp_path, ["only"], unit(1, clip.dim, seed=5), clip.fingerprint, attributes={"a": [1]})
    assert list(loaded(ExactIndex, tmp_path, clip).ids) == ["only"]
    assert read_manifest(tmp_path).attributes == {"a": [1]}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_another_encoders_index_is_refused(
    kind: Any, clip: ClipEncoder, other_clip: ClipEncoder, tmp_path: Path
) -> None:
    write_index(tmp_path, names(2), unit(2, clip.dim), clip.fingerprint, encoder_name="ours")
    with pytest.raises(IndexMismatchError) as caught:
        loaded(kind, tmp_path, other_clip)
    message = str(caught.value)
    for part in (str(tmp_path), "'ours'", clip.fingerprint[:12], other_clip.fingerprint[:12], "use that encoder"):
        assert part in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_another_length_are_refused(kind: Any) -> None:
    index = kind(names(3), unit(3, 8))
    for queries in (unit(1, 9), unit(1, 8)[0]):
        with pytest.raises(IndexMismatchError, match="length 8"):
            index.search(queries, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_not_be_indexed_is_refused(kind: Any) -> None:
    for ids, vectors, reason in (
        (names(2), unit(3, 8), "2 ids"),
        (names(3), unit(3, 8).astype(np.float64), "float64"),
        (["a", "b", "a"], unit(3, 8), "twice"),
        (names(3), np.where(unit(3, 8) > 0, np.float32(np.nan), unit(3, 8)), "not finite"),
    ):
        with pytest.raises(IndexMismatchError, match=reason):
            kind(ids, vectors)


def damage(folder: Path, how: str) -> None:
    vectors = folder / read_manifest(folder).vectors_name
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    match how:
        case "a flipped bit":
            data = bytearray(vectors.read_bytes())
            data[-3] ^= 1
            vectors.write_bytes(data)
        case "cut vectors":
            vectors.write_bytes(vectors.read_bytes()[:-8])
        case "no vectors":
            vectors.unlink()
        case "cut manifest":
            manifest.write_text(manifest.read_text()[:-20])
        case "no manifest":
            manifest.unlink()
        case "a changed id":
            manifest.write_text(manifest.read_text().replace("image 3", "image 8"))
        case "another format":
            manifest.write_text(json.dumps(content | {"format": 2}))
        case "a list":
            manifest.write_text("[]")
        case "a missing key":
            del content["ids"], content["checksum"]
            manifest.write_text(
                json.dumps({"checksum": fingerprint({k: content[k] for k in content if k != "format"})} | content)
            )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("a flipped bit", "checksum does not match"),
        ("cut vectors", "checksum does not match"),
        ("no vectors", "is missing"),
        ("cut manifest", "is damaged"),
        ("no manifest", "holds no index; build one with `fieldscope index"),
        ("a changed id", "checksum does not match"),
        ("another format", "another Fieldscope version"),
        ("a list", "is damaged"),
        ("a missing key", "is damaged"),
    ],
)
def test_damage_is_refused(how: str, reason: str, clip: ClipEncoder, tmp_path: Path) -> None:
    saved(tmp_path, clip)
    damage(tmp_path, how)
    for kind in KINDS:
        with pytest.raises(IndexMismatchError, match=reason):
            loaded(kind, tmp_path, clip)


def test_a_pickle_in_the_vectors_place_does_nothing(clip: ClipEncoder, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "owned",))

    saved(tmp_path / "index", clip)
    manifest = read_manifest(tmp_path / "index")
    (tmp_path / "index" / manifest.vectors_name).unlink()
    np.save(tmp_path / "evil.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    forge(tmp_path / "index", tmp_path / "evil.npy")
    with pytest.raises(IndexMismatchError, match="can't be read"):
        loaded(ExactIndex, tmp_path / "index", clip)
    assert not (tmp_path / "owned").exists()


def test_vectors_that_do_not_fit_the_manifest_are_refused(clip: ClipEncoder, tmp_path: Path) -> None:
    saved(tmp_path / "index", clip)
    misfits: list[Any] = [unit(6, clip.dim), unit(7, clip.dim).astype(np.float64)]
    for number, vectors in enumerate(misfits):
        np.save(tmp_path / f"{number}.npy", vectors)
        forge(tmp_path / "index", tmp_path / f"{number}.npy")
        with pytest.raises(IndexMismatchError, match="not 7 vectors of length 24"):
            loaded(ExactIndex, tmp_path / "index", clip)


def forge(folder: Path, vectors: Path) -> None:
    """Put other vectors into an index, with a manifest whose checksums are right."""
    manifest = read_manifest(folder).model_copy(update={"vectors_sha256": sha256(vectors.read_bytes()).hexdigest()})
    body = manifest.model_dump(mode="json")
    (folder / manifest.vectors_name).write_bytes(vectors.read_bytes())
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "checksum": fingerprint(body), **body}))


def test_a_folder_that_can_not_be_written_is_named(clip: ClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't write to"):
        saved(tmp_path / "file" / "index", clip)

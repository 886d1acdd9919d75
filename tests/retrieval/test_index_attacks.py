"""An index that was killed, cut, forged, shared or refused by the disk is sound, or one line says what to do."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError, FieldscopeError, IndexMismatchError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.types import Query, Search
from fieldscope.retrieval import manifest as manifest_module
from fieldscope.retrieval.captions import write_captions
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, Vectors
from fieldscope.retrieval.library import build_index, open_library, read_skipped
from fieldscope.retrieval.manifest import read_manifest
from fieldscope.retrieval.opening import reopen_collection

QUERY = Query(id="q", text="two red crabs")
CAPTIONS = {"0.png": "a red crab", "1.png": "a fish"}
FORK = multiprocessing.get_context("fork")
PATIENCE = 120.0  # seconds


class Colours:
    """A picture's mean colour: an encoder without libraries that a fork would stop in mid-work."""

    fingerprint = "colours"
    dim = 3
    uses = frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        return np.array([1, len(inputs.text) % 7, 1], dtype=np.float32)

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        return np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) / 255 for image in images])


def build(photos: Path, index: Path, batch_size: int = 2) -> int:
    return build_index(
        FolderCollection(photos), Colours(), index, encoder_name="colours", batch_size=batch_size
    ).encoded


def content(index: Path) -> dict[str, bytes]:
    return {path.relative_to(index).as_posix(): path.read_bytes() for path in index.rglob("*") if path.is_file()}


def in_child(work: Callable[[], object]) -> int:
    """Run in a process of its own; its exit status, negative for a signal."""
    child = FORK.Process(target=work)
    child.start()
    child.join(PATIENCE)
    assert child.exitcode is not None
    return child.exitcode


def killed_at(number: int, below: Path, work: Callable[[], object]) -> int:
    """Run in a process that dies by SIGKILL as it opens, moves, makes or removes its `number`-th file under `below`."""

    def struck() -> None:
        left = number

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"} and str(below) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work()

    return in_child(struck)


def test_a_build_killed_at_any_of_its_files_goes_on_to_the_identical_index(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole")
    expected = content(tmp_path / "whole")
    killed = 0
    for number in range(200):
        index = tmp_path / f"index-{number}"
        status = killed_at(number, index, lambda index=index: build(photos, index))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        build(photos, index)
        assert content(index) == expected
    assert status == 0 and killed > 20


def test_a_second_build_killed_leaves_the_first_index_or_the_second(photos: Path, tmp_path: Path) -> None:
    for number in range(200):
        index = tmp_path / f"index-{number}"
        (photos / "new.png").unlink(missing_ok=True)
        build(photos, index)
        PILImage.new("RGB", (9, 9), "red").save(photos / "new.png")
        os.utime(photos / "new.png", ns=(1, 1))
        status = killed_at(number, index, lambda index=index: build(photos, index))
        assert len(open_library(index, Colours()).index.ids) in (9, 10)
        build(photos, index)
        assert len(list(index.glob("vectors-*"))) == 1 and not list(index.glob("shards-*"))
        assert len(open_library(index, Colours()).index.ids) == 10
        if status == 0:
            break
    assert status == 0


def test_captions_killed_at_any_of_their_files_are_whole_or_absent(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole")
    write_captions(tmp_path / "whole", CAPTIONS, Colours())
    expected = content(tmp_path / "whole")
    for number in range(200):
        index = tmp_path / f"index-{number}"
        build(photos, index)
        status = killed_at(number, index, lambda index=index: write_captions(index, CAPTIONS, Colours()))
        captions = open_library(index, Colours()).captions
        assert captions is None or captions.texts == CAPTIONS
        write_captions(index, CAPTIONS, Colours())
        assert content(index) == expected
        if status == 0:
            break
    assert status == 0 and number > 5


def test_two_processes_on_one_folder_share_the_work(photos: Path, tmp_path: Path) -> None:
    ready, counts = FORK.Barrier(2), FORK.SimpleQueue()

    def work() -> None:
        ready.wait(PATIENCE)
        counts.put(build(photos, tmp_path / "index"))

    children = [FORK.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert sorted([counts.get(), counts.get()]) == [0, 9]
    build(photos, tmp_path / "alone")
    assert content(tmp_path / "index") == content(tmp_path / "alone")


def test_an_index_that_is_replaced_while_it_is_read_is_read_as_the_new_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build(photos, index)
    PILImage.new("RGB", (9, 9), "red").save(photos / "new.png")
    sha256 = manifest_module._sha256
    reading = [True]

    def replaced(path: Path) -> str:
        if path.name.startswith("vectors-") and reading:
            reading.clear()
            build(photos, index)
        return sha256(path)

    monkeypatch.setattr(manifest_module, "_sha256", replaced)
    assert len(open_library(index, Colours()).index.ids) == 10


def forged(index: Path, **changes: Any) -> None:
    """The manifest with other values, and the checksum that belongs to them."""
    body = json.loads((index / "manifest.json").read_text())
    body = {name: value for name, value in (body | changes).items() if name not in {"checksum", "format"}}
    (index / "manifest.json").write_text(json.dumps({"format": 1, "checksum": fingerprint(body), **body}))


def with_vectors(index: Path, data: bytes) -> None:
    """The index with another file of vectors, under the checksum and the name that belong to it."""
    import hashlib

    sha256 = hashlib.sha256(data).hexdigest()
    (index / f"vectors-{sha256[:16]}.npy").write_bytes(data)
    forged(index, vectors_sha256=sha256)


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def npy(values: Any, tmp: Path) -> bytes:
    np.save(tmp / "forged.npy", values)
    return (tmp / "forged.npy").read_bytes()


MANIFESTS: dict[str, Callable[[Path], object]] = {
    "cut": lambda index: (index / "manifest.json").write_bytes((index / "manifest.json").read_bytes()[:100]),
    "empty": lambda index: (index / "manifest.json").write_bytes(b""),
    "a list": lambda index: (index / "manifest.json").write_text("[]"),
    "a number": lambda index: (index / "manifest.json").write_text("7"),
    "deep": lambda index: (index / "manifest.json").write_text("[" * 100_000),
    "deep and sound": lambda index: (index / "manifest.json").write_text('{"a":' * 900 + "1" + "}" * 900),
    "no text": lambda index: (index / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "dim of text": lambda index: forged(index, dim="many"),
    "dim of nothing": lambda index: forged(index, dim=0),
    "huge dim": lambda index: forged(index, dim=10**30),
    "other dim": lambda index: forged(index, dim=4),
    "ids of numbers": lambda index: forged(index, ids=[1, 2, 3]),
    "ids as text": lambda index: forged(index, ids="abc"),
    "ids that are fewer": lambda index: forged(index, ids=["a"]),
    "ids twice": lambda index: forged(index, ids=["a"] * 9),
    "ids of half characters": lambda index: (index / "manifest.json").write_text(
        (index / "manifest.json").read_text().replace('"0.png"', '"\\ud800"')
    ),
    "a name that leads out": lambda index: forged(index, vectors_sha256="../../../../etc/passwd"),
    "attributes of text": lambda index: forged(index, attributes="none"),
    "no collection": lambda index: forged(index, attributes={}),
    "a list for a collection": lambda index: forged(index, attributes={"collection": []}),
    "unknown fields": lambda index: forged(index, surprise=1),
    "no vectors": lambda index: next(index.glob("vectors-*")).unlink(),
    "cut vectors": lambda index: os.truncate(next(index.glob("vectors-*")), 150),
    "vectors of no array": lambda index: with_vectors(index, b"nothing"),
    "vectors of nothing": lambda index: with_vectors(index, b""),
    "vectors that are none": lambda index: with_vectors(index, header("(9, 3)") + bytes(20)),
    "vectors without end": lambda index: with_vectors(index, header("(1000000000000, 1000000)") + bytes(108)),
    "vectors below zero": lambda index: with_vectors(index, header("(-9, 3)") + bytes(108)),
    "vectors beyond counting": lambda index: with_vectors(index, header(f"({2**70}, 3)") + bytes(108)),
    "pickled vectors": lambda index: with_vectors(index, header("(9, 3)", "|O") + bytes(108)),
    "wide vectors": lambda index: with_vectors(index, npy(np.ones((9, 4), dtype=np.float32), index)),
    "double vectors": lambda index: with_vectors(index, npy(np.ones((9, 3)), index)),
    "vectors not finite": lambda index: with_vectors(index, npy(np.full((9, 3), np.nan, dtype=np.float32), index)),
}


@pytest.mark.parametrize("attack", MANIFESTS)
def test_a_hostile_index_is_refused_in_one_line_and_built_again(attack: str, photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(photos, index)
    MANIFESTS[attack](index)
    with pytest.raises(IndexMismatchError) as refused:
        open_library(index, Colours())
    assert len(str(refused.value).splitlines()) == 1
    build(photos, index)
    assert len(open_library(index, Colours()).search(Search(QUERY, 20))) == 9


def zipped(index: Path) -> None:
    np.savez(index / "forged.npz", vectors=np.ones((9, 3), dtype=np.float32))
    with_vectors(index, (index / "forged.npz").read_bytes())


def piped(name: str) -> Callable[[Path], None]:
    def replace(index: Path) -> None:
        path = next(index.glob(name))
        path.unlink()
        os.mkfifo(path)

    return replace


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("attack", [zipped, piped("manifest.json"), piped("vectors-*")])
def test_other_kinds_of_files_are_refused_and_not_waited_for(
    attack: Callable[[Path], None], photos: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build(photos, index)
    attack(index)
    with pytest.raises(IndexMismatchError):
        open_library(index, Colours())


@pytest.mark.parametrize("stamps", [5, None, "text", ["x"], [1] * 9, {"a": 1}])
def test_stamps_of_a_wrong_kind_cost_a_new_encoding_at_most(stamps: Any, photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(photos, index)
    write_captions(index, CAPTIONS, Colours())
    forged(index, attributes={"collection": {"kind": "folder", "root": str(photos)}, "stamps": stamps})
    assert open_library(index, Colours()).captions is None
    write_captions(index, CAPTIONS, Colours())
    assert build(photos, index) == 9


@pytest.mark.parametrize("texts", [5, None, "text", ["x"], [1, 2], [["a"], ["b"]]])
def test_captions_of_a_wrong_kind_are_refused(texts: Any, photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(photos, index)
    write_captions(index, CAPTIONS, Colours())
    attributes = read_manifest(index / "captions").attributes
    forged(index / "captions", attributes=attributes | {"texts": texts})
    with pytest.raises(IndexMismatchError, match="make them again with `fieldscope caption`"):
        open_library(index, Colours())


@pytest.mark.parametrize(
    "locator",
    [
        {"kind": "folder", "root": 5},
        {"kind": "folder", "root": "a\0b"},
        {"kind": "files", "files": {"a": 5}},
        {"kind": "files", "files": {"a": "b\0c"}},
        {"kind": "files", "files": ["a"]},
        {"kind": "parquet", "paths": [5], "image_column": "image", "id_column": "id"},
        {"kind": "parquet", "paths": ["a\0b"], "image_column": "image", "id_column": "id"},
        {"kind": "parquet", "paths": ["/"], "image_column": "image", "id_column": "id"},
        {"kind": "union", "parts": {"a": 5}},
        {"kind": "union", "parts": {"a": {"kind": "union", "parts": {}}}},
        {"kind": ["folder"]},
        {},
    ],
)
def test_a_hostile_place_of_the_images_is_an_error_of_ours(locator: Any) -> None:
    with pytest.raises(ConfigError):
        reopen_collection(locator)


def test_ids_that_lead_out_of_the_folder_are_found_and_never_opened(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    PILImage.new("RGB", (5, 5)).save(tmp_path / "secret.png")
    build(photos, index)
    ids = list(read_manifest(index).ids)
    forged(index, ids=["../secret.png", str(tmp_path / "secret.png"), *ids[2:]])
    library = open_library(index, Colours())
    assert len(library.search(Search(QUERY, 9))) == 9
    for image_id in library.index.ids[:2]:
        with pytest.raises(FieldscopeError):
            library.collection.load(image_id)


def shard(folder: Path, **arrays: Any) -> None:
    np.savez(folder / f"{len(list(folder.iterdir()))}.npz", **arrays)


def test_hostile_shards_count_as_not_written(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index" / "shards-colours"
    folder.mkdir(parents=True)
    vectors = np.ones((1, 3), dtype=np.float32)
    stamp = FolderCollection(photos).stamp("0.png")
    for labels in ("5", "[5]", "null", "[" * 100_000, '[["0.png"]]', json.dumps([["0.png", stamp], ["0.png", stamp]])):
        shard(folder, labels=np.array(labels), vectors=vectors)
    shard(folder, labels=np.array(json.dumps([["0.png", stamp]])), vectors=np.ones((1, 7), dtype=np.float32))
    shard(folder, labels=np.array(json.dumps([["0.png", stamp]])), vectors=np.full((1, 3), np.inf, dtype=np.float32))
    shard(folder, labels=np.array([{"a": 1}], dtype=object), vectors=vectors)
    np.save(folder / "array.npy", vectors)
    (folder / "array.npy").rename(folder / "array.npz")
    (folder / "gone.npz").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.npz")
    assert build(photos, tmp_path / "index") == 9
    assert not folder.exists()


def test_a_full_disk_says_so_and_leaves_the_index_and_no_half_file(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(photos, index)
    before = content(index)
    PILImage.new("RGB", (9, 9), "red").save(photos / "new.png")
    told = FORK.SimpleQueue()

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        for work in (lambda: build(photos, index), lambda: write_captions(index, CAPTIONS, Colours())):
            try:
                work()
            except ConfigError as error:
                told.put(str(error))

    assert in_child(full) == 0
    for message in (told.get(), told.get()):
        assert "can't write to" in message and "free some disk space" in message and len(message.splitlines()) == 1
    assert {name: data for name, data in content(index).items() if name in before} == before
    assert not [name for name in content(index) if name.rpartition("/")[2].startswith(".") and name != ".lock"]
    assert len(open_library(index, Colours()).index.ids) == 9
    assert build(photos, index) == 1


@pytest.mark.parametrize("place", ["/proc/fieldscope-index", "/dev/null/index"])
def test_a_place_that_can_not_be_written_is_named(place: str, photos: Path) -> None:
    with pytest.raises(ConfigError, match=f"can't write to '{place}"):
        build(photos, Path(place))


def test_a_place_for_the_list_of_skipped_files_may_be_anything(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "index")
    for text in ("5", "[]", "{", '{"a": 5}', '{"a": ["b"]}'):
        (tmp_path / "index" / "skipped.json").write_text(text)
        assert all(isinstance(why, str) for why in read_skipped(tmp_path / "index").values())

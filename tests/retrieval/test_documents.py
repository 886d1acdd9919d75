"""Collections of pictures, texts and both: read, indexed, searched, and opened again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, ConfigError
from fieldscope.core.types import Query, Search
from fieldscope.retrieval.documents import DocumentsCollection
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors, encode_documents
from fieldscope.retrieval.index import ExactIndex
from fieldscope.retrieval.library import build_index, open_library
from fieldscope.retrieval.mapped_index import MappedIndex
from fieldscope.retrieval.opening import open_collection, reopen_collection

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class Colours:
    """An encoder whose space are the three colours: of a picture's middle, and of the words that name one."""

    fingerprint = "colours"
    dim = 3
    uses: frozenset[QueryPart] = frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        vector = sum((np.array(way) for name, way in COLOURS.items() if name in inputs.text.lower()), np.full(3, 1e-3))
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        vectors = np.array([image.getpixel((1, 1)) for image in images], dtype=np.float32)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in COLOURS:
        PILImage.new("RGB", (4, 4), name).save(tmp_path / f"{name}.png")
    lines = [
        {"id": "picture", "image": "red.png"},
        {"id": "text", "text": "something green"},
        {"id": "both", "image": "red.png", "text": "and blue", "src": "never read"},
    ]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", ["faiss", "mapped"])
def test_documents_of_any_kind_are_indexed_and_searched(folder: Path, kind: str) -> None:
    collection = open_collection([folder / "documents.jsonl"])
    report = build_index(collection, Colours(), folder / "index", index_kind=kind)
    assert report.indexed == 3
    library = open_library(folder / "index", Colours())

    def best(text: str) -> list[str]:
        return [candidate.image_id for candidate in library.search(Search(Query(id="q", text=text), 3))]

    assert best("red")[:2] == ["picture", "both"]
    assert best("green")[0] == "text"
    assert best("blue")[0] == "both"
    assert isinstance(library.index, MappedIndex) == (kind == "mapped")
    if isinstance(library.index, MappedIndex):
        assert isinstance(library.index._vectors, np.memmap)
    again = library.collection
    assert isinstance(again, DocumentsCollection)
    assert again.text_of("both") == "and blue"
    assert build_index(collection, Colours(), folder / "index", index_kind=kind).encoded == 0


def test_a_querys_picture_may_lie_beside_the_collection(folder: Path) -> None:
    build_index(open_collection([folder / "documents.jsonl"]), Colours(), folder / "index")
    library = open_library(folder / "index", Colours())
    query = Query(id="q", text="", reference_image="green.png")
    with pytest.raises(ConfigError, match=r"green\.png"):
        library.search(Search(query, 1))
    beside = replace(library, beside=open_collection([folder / "green.png"]))
    named = Query(id="q", text="", reference_image=(folder / "green.png").as_posix())
    assert [candidate.image_id for candidate in beside.search(Search(named, 1))] == ["text"]


def test_a_changed_text_is_encoded_again(folder: Path) -> None:
    path = folder / "documents.jsonl"
    build_index(open_collection([path]), Colours(), folder / "index")
    path.write_text(path.read_text().replace("something green", "something blue"), encoding="utf-8")
    assert build_index(open_collection([path]), Colours(), folder / "index").encoded == 1


def test_a_text_has_no_picture(folder: Path) -> None:
    collection = open_collection([folder / "documents.jsonl"])
    with pytest.raises(BrokenImageError, match="'text' is a text and has no picture"):
        collection.load("text")


def test_a_picture_with_a_text_is_the_sum_of_both_where_an_encoder_does_not_read_them_together() -> None:
    red = PILImage.new("RGB", (4, 4), "red")
    both = encode_documents(Colours(), [DocumentInputs("blue", red), DocumentInputs("", red), DocumentInputs("blue")])
    expected = both[1] + both[2]
    assert both[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"id": "a"}', r"line 1: text: it has neither a text nor a picture"),
        ('{"text": "a"}', r"line 1: missing key 'id'"),
        ('{"id": "a", "text": 7}', r"line 1: text: "),
        ('{"id": "a", "image": "../x.png"}', r"line 1: image: '../x\.png' is not a path below"),
        ("no json", r"line 1: "),
    ],
)
def test_a_wrong_line_is_refused_by_file_line_and_field(tmp_path: Path, line: str, named: str) -> None:
    (tmp_path / "documents.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"documents\.jsonl, {named}"):
        open_collection([tmp_path / "documents.jsonl"])


def test_a_list_of_documents_is_opened_again_without_a_file(folder: Path) -> None:
    collection = open_collection([folder / "documents.jsonl"])
    assert isinstance(collection, DocumentsCollection)
    some = collection.only(["both"])
    again = reopen_collection(json.loads(json.dumps(some.locator())))
    assert isinstance(again, DocumentsCollection)
    assert (again.ids(), again.text_of("both"), again.load("both").size) == (("both",), "and blue", (4, 4))


def test_a_mapped_index_finds_what_an_exact_one_finds_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldscope.retrieval.mapped_index._ROWS", 7)
    vectors = np.random.default_rng(0).integers(-2, 3, (40, 5)).astype(np.float32)  # with many ties
    ids = [str(number) for number in range(40)]
    queries = vectors[:3]
    scores, found = MappedIndex(ids, vectors).search(queries, 12)
    expected, known = ExactIndex(ids, vectors).search(queries, 12)
    assert found == known
    assert scores.tolist() == expected.tolist()

"""What was encoded, searched or built is not encoded, searched or built again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.core.types import Query, Search, Turn
from fieldscope.retrieval import faiss_index
from fieldscope.retrieval.captions import Captions, write_captions
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.library import Library, build_index, open_library
from fieldscope.retrieval.remembered import RememberedSearch
from tests.waiting import PATIENCE

QUERY = Query(id="q", text="two red crabs on a beach")


@dataclass
class Counting:
    """The real encoder, with the texts that it was given."""

    encoder: ClipEncoder
    texts: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def uses(self) -> frozenset[QueryPart]:
        return self.encoder.uses

    @property
    def dim(self) -> int:
        return self.encoder.dim

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        self.texts.append(inputs.text)
        return self.encoder.encode_query(inputs)

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        return self.encoder.encode_images(images)


@pytest.fixture
def encoder(clip: ClipEncoder) -> Counting:
    return Counting(clip)


@pytest.fixture
def library(photos: Path, clip: ClipEncoder, encoder: Counting, tmp_path: Path) -> Library:
    build_index(FolderCollection(photos), clip, tmp_path / "index")
    write_captions(tmp_path / "index", {"0.png": "a red crab", "1.png": "a blue fish"}, clip)
    return open_library(tmp_path / "index", encoder)


def test_a_text_is_encoded_once(library: Library, encoder: Counting) -> None:
    told = QUERY.model_copy(update={"dialogue": (Turn(question="where?", answer="in the rain"),)})
    first = library.search(Search(QUERY, 3, ("a red crab",)))
    assert library.search(Search(QUERY, 3, ("a red crab",))) == first
    library.search(Search(QUERY, 5, ("a red crab", "a crab")))
    library.search(Search(QUERY.model_copy(update={"reference_image": "3.png"}), 5))
    assert library.search(Search(told, 3)) != library.search(Search(QUERY, 3))
    assert encoder.texts == [QUERY.text, "a red crab", "a crab", f"{QUERY.text}, in the rain"]


def test_a_search_is_made_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = faiss_index.FaissIndex.search
    monkeypatch.setattr(
        faiss_index.FaissIndex, "search", lambda self, vectors, k: searched.append(k) or search(self, vectors, k)
    )
    remembered = RememberedSearch(library)
    first = remembered.search(Search(QUERY, 3))
    first_again = remembered.search(Search(QUERY, 3, (), 0.0))
    assert first == first_again == library.search(Search(QUERY, 3))
    first.clear()
    assert remembered.search(Search(QUERY, 3)) == first_again
    assert len(remembered.search(Search(QUERY, 4))) == 4
    assert remembered.search(Search(QUERY, 3, ("a blue fish",))) != first_again
    assert searched == [3, 3, 4, 3]


def test_concurrent_searches_build_one_blended_index_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first build goes on when every other search waits for it, or builds too."""
    at_work = 8
    builds: list[float] = []
    go_on = threading.Event()

    class Lock:
        def __init__(self) -> None:
            self.lock, self.arrivals = threading.Lock(), itertools.count(1)

        def __enter__(self) -> None:
            if next(self.arrivals) == at_work:
                go_on.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    blend = Captions.blend

    def counted(self: Captions, ids: Sequence[str], vectors: Vectors, weight: float) -> Vectors:
        builds.append(weight)
        if len(builds) > 1:
            go_on.set()
        assert go_on.wait(PATIENCE)
        return blend(self, ids, vectors, weight)

    monkeypatch.setattr(Captions, "blend", counted)
    object.__setattr__(library, "_blending", Lock())

    def search() -> list[str]:
        return [candidate.image_id for candidate in library.search(Search(QUERY, 5, (), 0.5))]

    with ThreadPoolExecutor(at_work) as pool:
        found = [each.result() for each in [pool.submit(search) for _ in range(at_work)]]
    assert builds == [0.5]
    assert all(ids == found[0] for ids in found)

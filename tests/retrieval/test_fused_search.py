"""A library is searched by text, by image plus change, by dialogue, and by several descriptions at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Candidate, Query, Search, Turn
from fieldscope.retrieval.captions import Captions
from fieldscope.retrieval.clip import ClipEncoder
from fieldscope.retrieval.encoder import Vectors, inputs_of, query_text
from fieldscope.retrieval.faiss_index import FaissIndex
from fieldscope.retrieval.index import ExactIndex
from fieldscope.retrieval.library import Library

DESCRIPTIONS = ("a red crab", "two crabs in rain", "a fish on the beach")
CAPTIONS = {"image 2": "a blue fish", "image 5": "two red crabs", "image 0": "rain", "gone": "the crab"}
IDS = [f"image {n}" for n in range(8)]
COMPOSED = Query(id="c", text="in the rain", reference_image="image 3")


def text(query: str) -> Query:
    return Query(id="t", text=query)


@pytest.fixture(scope="module")
def library(clip: ClipEncoder) -> Library:
    vectors = np.random.default_rng(1).standard_normal((len(IDS), clip.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spoken = np.stack([clip.encode_query(inputs_of(text(caption))) for caption in CAPTIONS.values()])
    return Library(FaissIndex(IDS, vectors), clip, {}, Captions(CAPTIONS, spoken), IDS)


def expected(scores: Vectors, leave_out: str | None = None) -> dict[str, Any]:
    order = np.argsort(-scores)
    return {IDS[i]: pytest.approx(float(scores[i]), abs=1e-5) for i in order if IDS[i] != leave_out}


def priors(found: list[Candidate]) -> dict[str, float]:
    assert [c.prior for c in found] == sorted((c.prior for c in found), reverse=True)
    return {candidate.image_id: candidate.prior for candidate in found}


def test_a_composed_query_is_its_image_and_its_text_and_never_finds_its_image(library: Library) -> None:
    both = library.index.vectors[3] + library.encoder.encode_query(inputs_of(text("in the rain")))
    scores = library.index.vectors @ (both / np.linalg.norm(both))
    assert priors(library.search(Search(COMPOSED, 100))) == expected(scores, "image 3")
    assert scores.argmax() == 3  # it would have come first
    assert len(library.search(Search(COMPOSED, 7))) == 7
    assert [c.image_id for c in library.search(Search(COMPOSED, 2))] == list(expected(scores, "image 3"))[:2]


def test_a_reference_image_that_is_not_indexed_is_an_error(library: Library) -> None:
    with pytest.raises(ConfigError, match="'elsewhere' is none of the 8"):
        library.search(Search(Query(id="c", text="in the rain", reference_image="elsewhere"), 3))


def test_a_dialogue_is_searched_by_what_was_said(library: Library) -> None:
    turns = (Turn(question="which colour?", answer="red"), Turn(question="where?", answer="on the beach"))
    dialogue = Query(id="d", text="a crab", dialogue=turns)
    assert query_text(dialogue) == "a crab, red, on the beach"
    assert library.search(Search(dialogue, 8)) == library.search(Search(text("a crab, red, on the beach"), 8))
    assert library.search(Search(dialogue, 8)) != library.search(Search(text("a crab"), 8))


@given(st.lists(st.sampled_from(DESCRIPTIONS), max_size=3), st.sampled_from([0.0, 0.15, 0.5, 1.0]), st.booleans())
def test_similarities_are_averaged_over_descriptions_and_weighted_with_captions(
    library: Library, descriptions: list[str], weight: float, composed: bool
) -> None:
    query = COMPOSED if composed else text("a crab")
    own = library.encoder.encode_query(inputs_of(query.model_copy(update={"reference_image": None})))
    if composed:
        own = library.index.vectors[3] + own
        own = own / np.linalg.norm(own)
    wanted = np.stack([own, *(library.encoder.encode_query(inputs_of(text(words))) for words in descriptions)])
    image = library.index.vectors @ wanted.T
    scores = image.copy()
    assert library.captions is not None
    for (image_id, _), caption in zip(CAPTIONS.items(), library.captions.vectors, strict=True):
        if image_id in IDS:
            row = IDS.index(image_id)
            scores[row] = (1 - weight) * image[row] + weight * (wanted @ caption)
    found = priors(library.search(Search(query, 8, descriptions, caption_weight=weight)))
    own_share = max(len(descriptions), 1) if composed else 1
    weights = [own_share, *[1] * len(descriptions)]
    assert found == expected(np.average(scores, axis=1, weights=weights), query.reference_image)


def test_what_descriptions_find_can_be_scored_by_the_query_alone(library: Library) -> None:
    query, descriptions = text("a crab"), ["in the rain", "a dune at night"]
    fused = library.search(Search(query, 4, descriptions, caption_weight=0.5))
    alone = priors(library.search(Search(query, 100, caption_weight=0.5)))
    found = library.search(Search(query, 4, descriptions, caption_weight=0.5, prior="query"))
    assert {candidate.image_id for candidate in found} == {candidate.image_id for candidate in fused}
    assert priors(found) == pytest.approx({c.image_id: alone[c.image_id] for c in fused})


def test_without_captions_their_weight_means_nothing(library: Library) -> None:
    plain = Library(library.index, library.encoder, {})
    assert plain.search(Search(text("a crab"), 8, caption_weight=0.5)) == plain.search(Search(text("a crab"), 8))
    assert library.search(Search(text("a crab"), 8, caption_weight=0.5)) != plain.search(Search(text("a crab"), 8))


@pytest.mark.parametrize("kind", [ExactIndex, FaissIndex])
def test_an_index_hands_out_single_vectors(kind: type[ExactIndex] | type[FaissIndex]) -> None:
    vectors = np.eye(3, dtype=np.float32)
    index = kind(["a", "b", "c"], vectors)
    np.testing.assert_array_equal(index.vectors_of(["b"])[0], vectors[1])
    with pytest.raises(ConfigError, match="'d' is none of the 3"):
        index.vectors_of(["d"])

"""A fixed sample of a collection stands for it, whatever the order, and a standing does not depend on a list."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fieldscope.core.types import Query, Search
from fieldscope.retrieval.background import SAMPLE, SMALLEST, background, sampled
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.index import ExactIndex
from fieldscope.retrieval.library import Library


def names(number: int) -> list[str]:
    return [f"{n:05}.jpg" for n in range(number)]


def test_the_sample_depends_on_no_order_and_outlasts_growth() -> None:
    some = names(3000)
    chosen = sampled(some)
    assert len(set(chosen)) == SAMPLE
    shuffled = random.Random(0).sample(some, k=len(some))
    assert sampled(shuffled) == chosen
    assert len(set(sampled(names(3300))) & set(chosen)) > 0.8 * SAMPLE
    assert sampled(names(SMALLEST)) and not sampled(names(SMALLEST - 1))


def test_a_background_by_hand() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32)
    scale = background(vectors, np.array([1.0, 0.0], dtype=np.float32))
    assert scale is not None
    assert (scale.mean, scale.deviation) == pytest.approx((1.6 / 3, np.std([1.0, 0.0, 0.6])))
    assert scale.standing(1.6 / 3) == pytest.approx(0.0, abs=1e-6)
    assert background(vectors[:1].repeat(60, axis=0), np.array([1.0, 0.0], dtype=np.float32)) is None
    assert background(vectors[:0], np.array([1.0, 0.0], dtype=np.float32)) is None


class Fixed:
    """Encodes every query as the same direction."""

    fingerprint, dim, uses = "fixed", 2, frozenset[str]()

    def encode_query(self, inputs: QueryInputs) -> np.ndarray:
        return np.array([1.0, 0.0], dtype=np.float32)

    def encode_images(self, images):
        raise NotImplementedError


def test_a_candidate_stands_the_same_in_any_search() -> None:
    angles = np.random.default_rng(0).uniform(0, np.pi, size=400)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids = names(400)
    library = Library(ExactIndex(ids, vectors), Fixed(), {}, ids=ids)
    query = Query(id="q", text="a heron")
    few, many = (library.search(Search(query, k)) for k in (5, 100))
    standing = {candidate.image_id: candidate.standing for candidate in many}
    similarities = vectors[:, 0].astype(np.float64)
    for candidate in few:
        assert candidate.standing == standing[candidate.image_id]
        assert candidate.standing == pytest.approx((candidate.prior - similarities.mean()) / similarities.std())
    small = Library(ExactIndex(ids[:9], vectors[:9]), Fixed(), {}, ids=ids[:9])
    assert all(candidate.standing is None for candidate in small.search(Search(query, 5)))

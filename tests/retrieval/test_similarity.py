"""The scorer `similarity`, called from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image as PILImage

from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.scorer import Similarity

DIMENSIONS = {"first": 0, "second": 1}


class Meeting:
    """An encoder that has the queries of two threads before it encodes the images of either."""

    fingerprint = "meeting"
    dim = 2
    uses: frozenset[QueryPart] = frozenset({"text"})

    def __init__(self) -> None:
        self.both_here = threading.Barrier(2)

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        vector = np.zeros(2, dtype=np.float32)
        vector[DIMENSIONS[inputs.text]] = 1
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        self.both_here.wait(60)
        return np.array([[0.25, 0.75]], dtype=np.float32).repeat(len(images), 0)


def test_each_thread_gets_the_scores_of_its_own_query() -> None:
    scorer, image = Similarity(Meeting()), PILImage.new("RGB", (2, 2))
    with ThreadPoolExecutor(2) as threads:
        scores = list(threads.map(lambda text: scorer.score(QueryInputs(text), [image]), DIMENSIONS))
    assert scores == [[0.25], [0.75]]

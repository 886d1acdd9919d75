"""Scorers say how well each image matches a query: what one must do, the registered ones, and CLIP's similarity."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Protocol

from PIL import Image as PILImage

from fieldscope.core.registry import Registry
from fieldscope.core.types import ImageSource
from fieldscope.retrieval.batches import read_batches
from fieldscope.retrieval.encoder import Encoder, QueryInputs, Vectors
from fieldscope.retrieval.progress import Report

_AT_ONCE = 8  # images in memory


class Scorer(Protocol):
    """A model that looks at a query and an image together, or compares their vectors."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing, by which calibrations tell scorers apart."""
        ...

    def score(self, inputs: QueryInputs, images: Sequence[PILImage.Image]) -> list[float]:
        """A finite score for each image, in the order given; any scale, greater is better."""
        ...


SCORERS: Registry[Callable[[str, Callable[[], Encoder]], Scorer]] = Registry("scorer", "fieldscope.scorers")
"""Each makes a scorer from an argument and a function that loads the user's encoder, if the scorer needs one."""


class Similarity:
    """The inner product of the query's and the image's vectors: for CLIP the cosine, between -1 and 1."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[QueryInputs, Vectors] | None = None  # images come a few at a time for one query

    @classmethod
    def open(cls, argument: str, encoder: Callable[[], Encoder]) -> Similarity:
        """The scorer "similarity"; it ignores its argument."""
        return cls(encoder())

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def score(self, inputs: QueryInputs, images: Sequence[PILImage.Image]) -> list[float]:
        if self._last is None or self._last[0] is not inputs:
            self._last = (inputs, self._encoder.encode_query(inputs))
        return [float(similarity) for similarity in self._encoder.encode_images(images) @ self._last[1]]


def score_images(
    scorer: Scorer | None,
    inputs: QueryInputs,
    ids: Sequence[str],
    images: ImageSource,
    skipped: MutableMapping[str, str],
    progress: Report | None = None,
) -> dict[str, float]:
    """The score of each image that can be read, by its id, in the order given; 0 where there is no scorer.

    Images are loaded a few at a time. Those that can't be read go to `skipped` with the reason.
    """
    scores: dict[str, float] = {}
    for batch in read_batches(images, ids, _AT_ONCE, skipped):
        pictures = [image for _, image in batch]
        values = scorer.score(inputs, pictures) if scorer else [0.0] * len(pictures)
        scores |= zip((image_id for image_id, _ in batch), values, strict=True)
        if progress is not None:
            progress(len(scores), len(ids))
    return scores

"""The seam between retrieval and whatever turns queries and images into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fieldscope.core.types import Query

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """A model that puts queries and images into one space, where the inner product is the similarity."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing: vectors of two encoders compare only where this is equal."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode_query(self, query: Query, instruction: str | None = None) -> Vectors:
        """One L2-normalised vector, shape (dim,). `instruction` steers encoders that follow one; others ignore it.

        Raises `ConfigError` for a query with a reference image where that takes its pixels, which no query carries.
        """
        ...

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        ...


@runtime_checkable
class CorrectedEncoder(Protocol):
    """An encoder whose weights an earlier release may have built into another, wrong model."""

    @property
    def wrong_fingerprint(self) -> str | None:
        """The wrong model's fingerprint; None where the weights were always built as they should."""
        ...


def query_text(query: Query) -> str:
    """A query's words for an encoder that reads captions: its text and, of a dialogue, the answers of all rounds.

    Questions are left out. They say what is not known, in words that no caption has, and would fill a short context.
    """
    return ", ".join((query.text, *(turn.answer for turn in query.dialogue)))

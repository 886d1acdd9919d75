"""Vectors of queries: words, a reference image, or both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.types import Query
from fieldscope.retrieval.encoder import Encoder, Vectors, inputs_of
from fieldscope.retrieval.lru import ByteLru

_TEXT_BYTES = 4_000_000


class QueryVectors:
    """The vectors of queries under one encoder, each of shape (dim,) and length 1.

    Those of words are remembered within bounds, because later rounds need them again. Safe to use from several threads.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._texts: ByteLru[Vectors] = ByteLru(_TEXT_BYTES)

    def of(
        self,
        query: Query,
        vector_of: Callable[[str], Vectors],
        load: Callable[[str], PILImage.Image],
        instruction: str | None = None,
    ) -> Vectors:
        """A query's vector, under an `instruction` where the encoder reads one. Where the encoder does not use
        reference images itself, it is the normalised sum of the text's and the image's vectors.

        `vector_of` gives an image's vector by its id, and `load` its pixels; what they raise is passed on.
        """
        reference, instruction = query.reference_image, instruction or query.instruction
        if reference is None:
            return self.of_text(query, instruction)
        if "image" in self._encoder.uses:
            return self._encoder.encode_query(inputs_of(query, load(reference), self._read(instruction)))
        image = vector_of(reference)
        if not query.text:
            return image
        both = image + self.of_text(query, instruction)
        unit: Vectors = both / np.linalg.norm(both)
        return unit

    def of_text(self, query: Query, instruction: str | None = None) -> Vectors:
        """The vector of a query's words alone."""
        instruction = self._read(instruction or query.instruction)
        key = (query.text, query.dialogue, instruction, query.wanted)
        vector = self._texts.get(key)
        if vector is None:
            vector = self._encoder.encode_query(inputs_of(query, instruction=instruction))
            self._texts.put(key, vector, vector.nbytes + len(query.text))
        return vector

    def remembers(self, query: Query, instruction: str | None = None) -> bool:
        """Whether the vector of a query's words is there already."""
        instruction = self._read(instruction or query.instruction)
        return self._texts.get((query.text, query.dialogue, instruction, query.wanted)) is not None

    def _read(self, instruction: str | None) -> str | None:
        """The instruction where the encoder reads one. It is not asked about one that is not there."""
        return instruction if instruction and "instruction" in self._encoder.uses else None

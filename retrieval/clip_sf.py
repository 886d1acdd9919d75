"""CLIP_SF, UniIR's baseline (arXiv 2311.17136): whatever has words and a picture has the sum of CLIP's vectors of both.

The same holds for queries and documents. An instruction stands before a query's words; one to a query that is only a
picture is its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs, QueryPart, Vectors
from fieldscope.retrieval.model_folder import kind_of


class Towers(Protocol):
    """A CLIP whose towers give features that are not normalised, shape (n, dim)."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def text_features(self, texts: Sequence[str]) -> Vectors: ...

    def image_features(self, images: Sequence[PILImage.Image]) -> Vectors: ...


class ClipSf:
    """A CLIP as an `Encoder` and `DocumentEncoder` of texts, pictures and both. Features are summed as the towers give
    them, and the sum is L2-normalised, so that inner products are cosine similarities."""

    def __init__(self, clip: Towers) -> None:
        self._clip = clip

    @property
    def fingerprint(self) -> str:
        return fingerprint({"clip-sf": self._clip.fingerprint})

    @property
    def dim(self) -> int:
        return self._clip.dim

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset({"text", "image", "instruction"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        """One L2-normalised vector, shape (dim,)."""
        words = " ".join(part for part in (inputs.instruction, inputs.text) if part)
        vector: Vectors = self.encode_documents([DocumentInputs(words, inputs.image)])[0]
        return vector

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        """L2-normalised vectors, shape (len(images), dim), in the order given."""
        return self.encode_documents([DocumentInputs(image=image) for image in images])

    def encode_documents(self, documents: Sequence[DocumentInputs]) -> Vectors:
        """L2-normalised vectors, shape (len(documents), dim), in the order given. A document without anything is an
        empty text."""
        sums = np.zeros((len(documents), self.dim), dtype=np.float32)
        pictures = {row: each.image for row, each in enumerate(documents) if each.image is not None}
        texts = {row: each.text for row, each in enumerate(documents) if each.text or each.image is None}
        if pictures:
            sums[list(pictures)] += self._clip.image_features(list(pictures.values()))
        if texts:
            sums[list(texts)] += self._clip.text_features(list(texts.values()))
        unit: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return unit


def open_clip_sf(argument: str) -> ClipSf:
    """The encoder "clip-sf": `argument` names a CLIP as open_clip does, or the folder of one of open_clip or
    transformers. Raises `ConfigError`."""
    if not argument:
        raise ConfigError("clip-sf needs a CLIP; name one, as in clip-sf:ViT-L-14:openai or clip-sf:FOLDER")
    folder = Path(argument).expanduser()
    if folder.is_dir() and kind_of(folder) == "clip":
        from fieldscope.retrieval.transformers_clip import TransformersClip

        return ClipSf(TransformersClip.load(folder))
    from fieldscope.retrieval.clip import ClipEncoder

    return ClipSf(ClipEncoder.load(argument))

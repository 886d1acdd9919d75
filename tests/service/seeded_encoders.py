"""Encoders of random weights under the names of published models, so that no test needs a hub."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fieldscope.retrieval.encoder import QueryInputs, QueryPart, Vectors

DIM = 16


def drawn(seed: str, *shape: int) -> Any:
    return np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:8])).normal(size=shape)


def unit(vectors: Any) -> Vectors:
    normal: Vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return normal


class SeededEncoder:
    """A random projection of an image's 4 x 4 thumbnail, and a random direction for each text. `seen` counts the images
    that were encoded."""

    dim = DIM

    def __init__(self, name: str) -> None:
        self.name = name
        self.fingerprint = sha256(name.encode()).hexdigest()
        self.seen = 0

    @property
    def uses(self) -> frozenset[QueryPart]:
        return frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        return unit(drawn(f"{self.name} reads {inputs.text}", DIM))

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        self.seen += len(images)
        small = np.stack([np.asarray(image.resize((4, 4)), dtype=np.float64).ravel() for image in images])
        return unit((small - 128) @ drawn(self.name, small.shape[1], DIM))

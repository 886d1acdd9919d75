"""The encoder under examination, its calls, and the vectors of known images and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from PIL import Image as PILImage

from fieldscope.retrieval.encoder import Encoder, QueryInputs, Vectors
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe

ROUNDING = 2e-3
"""The distance of two vectors of length 1 up to which they are the same but for rounding."""

CLEAR = 5e-2
"""A distance that half precision does not explain."""


@dataclass
class Subject:
    """What a check needs, and what it leaves for later checks. `queries` are the vectors of the probe's descriptions,
    and `images` those of their images, each encoded alone, shape (4, dim)."""

    encoder: Encoder
    probe: Probe
    queries: Vectors = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    images: Vectors = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    calls: int = 0
    _counting: Lock = field(default_factory=Lock)

    @property
    def descriptions(self) -> tuple[str, ...]:
        return tuple(description for description, _ in self.probe.lineup)

    @property
    def pictures(self) -> tuple[PILImage.Image, ...]:
        """One for each description."""
        return tuple(self.probe.images[image] for _, image in self.probe.lineup)

    @property
    def comparable(self) -> bool:
        """Whether texts and images have finite vectors of one length."""
        same = self.queries.shape == self.images.shape
        return same and bool(np.isfinite(self.queries).all() and np.isfinite(self.images).all())

    def query(self, inputs: QueryInputs | str) -> Vectors:
        """One call: a query's vector, shape (dim,)."""
        self._count()
        return self.encoder.encode_query(QueryInputs(inputs) if isinstance(inputs, str) else inputs)

    def encode(self, images: Sequence[PILImage.Image]) -> Vectors:
        """One call: vectors, shape (len(images), dim)."""
        self._count()
        return self.encoder.encode_images(images)

    def _count(self) -> None:
        with self._counting:
            self.calls += 1


Check = Callable[[Subject], Finding]
"""Asks the encoder something, and says what it found."""


def distance(first: Vectors, second: Vectors) -> float:
    """The largest distance of two vectors in the same row."""
    return float(np.linalg.norm(np.atleast_2d(first) - np.atleast_2d(second), axis=1).max())

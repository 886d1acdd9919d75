"""Where a closer look at an image may pay: regions that fit some texts, at more pixels than the whole picture shows."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from fieldscope.core.errors import ImageError, VocabularyError
from fieldscope.core.looks import Region
from fieldscope.core.types import ImageSource, Query
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.encoder import Encoder, Vectors
from fieldscope.retrieval.encoding import Encoding
from fieldscope.retrieval.looked_at import cut, stored_size
from fieldscope.retrieval.lru import ByteLru
from fieldscope.retrieval.progress import Report
from fieldscope.retrieval.query_vectors import QueryVectors
from fieldscope.retrieval.tile_vectors import TileVectors

LEAST_GAIN = 1.5
"""A closer look shall show the model this many times the pixels of the region that it sees in the whole picture."""

BUNDLED_READS = 112 * 112
"""Pixels of a picture that the bundled models read."""

SERVED_READS = 1_000_000
"""Pixels of a picture that a served model is taken to read, where no limit is set."""

SIDES = {0.6: 1 / 2, 0.4: 2 / 3, 0.25: 2 / 3}
"""Sides of tiles, as shares of the picture's shorter side, and how far one lies from the next at most, as a share of
its own side."""

LAYOUT = "0.6,0.4,0.25"
"""Which tiles `tiles` makes of a size. Vectors of another layout are not used."""

SMALLEST_TILE = 200
"""Pixels a side. Encoders read as many: of a smaller tile they would see no more than in a larger one."""

MOST_TILES = 120
MOST_SHARED = 0.5  # of the smaller of two proposed regions
TILE_PIXELS = 256 * 256
"""A tile is scaled down to this before it is encoded: encoders read less."""

_RECENT_BYTES = 64_000_000


@dataclass(frozen=True)
class Proposal:
    """A region to look at, and its similarity to the texts that it was proposed for (the encoder's, greater is
    nearer)."""

    region: Region
    similarity: float


class RegionProposer(Protocol):
    """Chooses regions of images by what texts say. It may decode and encode images, so call it from a worker thread."""

    def propose(
        self, texts: Sequence[str], image_ids: Sequence[str], most: int, least_gain: float = LEAST_GAIN
    ) -> Mapping[str, tuple[Proposal, ...]]:
        """At most `most` regions of each image, best first, that overlap little.

        `least_gain` is how many times the pixels a model must see a region at to make it worth a look; 0 where a
        calibration shows that looks pay in any case. An image without such a region is left out, and so is one that
        can't be read. Raises what the encoder raises.
        """
        ...

    def gain(self, image_id: str, region: Region) -> float:
        """How many times the pixels of a region the model sees when it is shown the region and not the whole image; 0
        for an image that can't be read."""
        ...


class TileRegions:
    """Proposes tiles: squares of three sizes that overlap, by their vectors under the first stage's encoder.

    A tile's similarity is the mean of its similarities to the texts that the encoder can read. Vectors of an image's
    tiles are made when they are first needed, at most one image at a time, and kept in `folder` (None: in memory).
    `reads` are the pixels of a picture that the model reads, by which the gain is counted.
    """

    def __init__(
        self, images: ImageSource, load_encoder: Callable[[], Encoder], folder: Path | None, reads: int
    ) -> None:
        self._images = images
        self._load_encoder = load_encoder
        self._folder = folder
        self._reads = reads
        self._recent: ByteLru[Vectors] = ByteLru(_RECENT_BYTES)
        self._making = threading.RLock()

    @cached_property
    def _encoder(self) -> Encoder:
        with self._making:
            return self._load_encoder()

    @cached_property
    def _queries(self) -> QueryVectors:
        return QueryVectors(self._encoder)

    @cached_property
    def _stored(self) -> TileVectors | None:
        return TileVectors(self._folder, self._encoder.fingerprint) if self._folder else None

    def propose(
        self, texts: Sequence[str], image_ids: Sequence[str], most: int, least_gain: float = LEAST_GAIN
    ) -> Mapping[str, tuple[Proposal, ...]]:
        direction: Vectors | None = None
        proposals: dict[str, tuple[Proposal, ...]] = {}
        for image_id in image_ids:
            try:
                size = stored_size(self._images, image_id)
                regions = tiles(*size)
                paying = [gain(region, size, self._reads) >= least_gain for region in regions]
                if not any(paying):
                    continue
                direction = self._direction(texts) if direction is None else direction
                if direction is None:
                    return {}
                similarities = self.vectors(image_id) @ direction
            except ImageError:
                continue
            found = zip(regions, similarities.tolist(), paying, strict=True)
            proposals[image_id] = _best([Proposal(region, value) for region, value, pays in found if pays], most)
        return proposals

    def gain(self, image_id: str, region: Region) -> float:
        try:
            return gain(region, stored_size(self._images, image_id), self._reads)
        except ImageError:
            return 0.0

    def encode(self, image_ids: Sequence[str], progress: Report, encoding: Encoding | None = None) -> None:
        """Make and keep the vectors of these images' tiles, those that are not kept yet; an image that can't be read
        has none. `encoding` makes those of an image, shape (tiles, dim), in place of this process. Raises `ConfigError`
        where they can't be kept, and what the encoder raises."""
        if self._stored is not None:
            self._stored.require_writable()
        progress(0, len(image_ids))
        if encoding is not None and self._stored is not None:
            self._keep(self._stored, image_ids, progress, encoding)
            return
        for done, image_id in enumerate(image_ids, start=1):
            with suppress(ImageError):
                self.vectors(image_id)
            progress(done, len(image_ids))

    def _keep(self, stored: TileVectors, image_ids: Sequence[str], progress: Report, encoding: Encoding) -> None:
        known, marks = stored.marks(), {}
        for image_id in image_ids:
            with suppress(ImageError):
                mark = _mark(self._images, image_id)
                mark_then, layout = known.get(image_id, ("", ""))
                if mark_then != mark or not layout.endswith(f":{LAYOUT}"):
                    marks[image_id] = mark
        done = len(image_ids) - len(marks)
        for made in encoding(list(marks), {}):
            for image_id, vectors in made.items():
                stored.put(image_id, marks[image_id], f"{len(vectors)}:{LAYOUT}", vectors)
            done += len(made)
            progress(done, len(image_ids))

    def vectors(self, image_id: str) -> Vectors:
        """The vectors of `tiles` of an image, shape (tiles, dim); made where they are not kept. Raises `ImageError`."""
        mark = _mark(self._images, image_id)
        with self._making:
            known = self._recent.get((image_id, mark))
            if known is not None:
                return known
            regions = tiles(*stored_size(self._images, image_id))
            layout = f"{len(regions)}:{LAYOUT}"
            vectors = self._stored.get(image_id, mark, layout, self._encoder.dim) if self._stored else None
            if vectors is None or len(vectors) != len(regions):
                cuts = cut(self._images, image_id, regions, TILE_PIXELS)
                vectors = self._encoder.encode_images(cuts) if cuts else np.zeros((0, self._encoder.dim), np.float32)
                vectors = vectors.astype(np.float16).astype(np.float32)  # as they are stored, so that runs are alike
                if self._stored is not None:
                    self._stored.put(image_id, mark, layout, vectors)
            self._recent.put((image_id, mark), vectors, vectors.nbytes)
            return vectors

    def _direction(self, texts: Sequence[str]) -> Vectors | None:
        """The mean of the vectors of the texts that the encoder can read, shape (dim,); None where it can read none."""
        vectors = []
        for text in dict.fromkeys(texts):
            with suppress(VocabularyError):
                vectors.append(self._queries.of_text(Query(id="", text=text)))
        return np.mean(vectors, axis=0) if vectors else None


def tiles(width: int, height: int) -> tuple[Region, ...]:
    """Squares that cover a picture of this size, large ones first: each row and column of them overlaps the next by a
    third of a side, that of the largest by a half, or more. None is smaller than `SMALLEST_TILE` pixels, and there are
    at most `MOST_TILES`."""
    found: list[Region] = []
    for share, stride in SIDES.items():
        side = share * min(width, height)
        lefts, tops = _starts(width, side, side * stride), _starts(height, side, side * stride)
        if side < SMALLEST_TILE or len(found) + len(lefts) * len(tops) > MOST_TILES:
            break
        boxes = ((left, top) for top in tops for left in lefts)
        found += [
            Region(left=x / width, top=y / height, right=min((x + side) / width, 1), bottom=min((y + side) / height, 1))
            for x, y in boxes
        ]
    return tuple(found)


def gain(region: Region, size: tuple[int, int], reads: int) -> float:
    """How many times the pixels of a region a model sees when it is shown the region and not the whole picture.

    `size` is the stored picture's width and height, `reads` the pixels of a picture that the model reads. At least 1
    for a model that reads no more than a picture has, and 1 for one that reads the whole of it.
    """
    whole = size[0] * size[1]
    seen_in_whole = region.area * min(reads, whole)
    return min(reads, region.area * whole) / seen_in_whole


def _starts(length: int, side: float, stride: float) -> list[float]:
    """Where tiles of this side begin along a length, evenly and at most a stride apart, from its one end to its
    other."""
    steps = math.ceil((length - side) / stride - 1e-9)
    return [step * (length - side) / max(steps, 1) for step in range(steps + 1)]


def _best(proposals: Sequence[Proposal], most: int) -> tuple[Proposal, ...]:
    """The nearest of them, none of which lies mostly within another."""
    chosen: list[Proposal] = []
    for proposal in sorted(proposals, key=lambda proposal: -proposal.similarity):
        if len(chosen) == most:
            break
        if all(proposal.region.shared(other.region) <= MOST_SHARED for other in chosen):
            chosen.append(proposal)
    return tuple(chosen)


def _mark(images: ImageSource, image_id: str) -> str:
    """What changes when the image does."""
    return images.stamp(image_id) if isinstance(images, Collection) else images.pixel_hash(image_id)

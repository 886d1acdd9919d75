"""Where a closer look at an image may pay: regions that fit some texts, at more pixels than the whole picture shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fieldscope.core.looks import Region

LEAST_GAIN = 1.5
"""A closer look shall show the model this many times the pixels of the region that it sees in the whole picture."""

BUNDLED_READS = 112 * 112
"""Pixels of a picture that the bundled models read."""

SERVED_READS = 1_000_000
"""Pixels of a picture that a served model is taken to read, where no limit is set."""


@dataclass(frozen=True)
class Proposal:
    """A region to look at, and its similarity to the texts that it was proposed for (the encoder's, greater is
    nearer)."""

    region: Region
    similarity: float


class RegionProposer(Protocol):
    """Chooses regions of images by what texts say. It may decode images, so call it from a worker thread."""

    def propose(
        self, texts: Sequence[str], image_ids: Sequence[str], most: int, least_gain: float = LEAST_GAIN
    ) -> Mapping[str, tuple[Proposal, ...]]:
        """At most `most` regions of each image, best first, that overlap little.

        `least_gain` is how many times the pixels a model must see a region at to make it worth a look; 0 where a
        calibration shows that looks pay in any case. An image without such a region has none, and so has one that can't
        be read.
        """
        ...


def gain(region: Region, size: tuple[int, int], reads: int) -> float:
    """How many times the pixels of a region a model sees when it is shown the region and not the whole picture.

    `size` is the stored picture's width and height, `reads` the pixels of a picture that the model reads. At least 1
    for a model that reads no more than a picture has, and 1 for one that reads the whole of it.
    """
    whole = size[0] * size[1]
    seen_in_whole = region.area * min(reads, whole)
    return min(reads, region.area * whole) / seen_in_whole

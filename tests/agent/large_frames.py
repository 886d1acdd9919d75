"""Large frames with small subjects, a model that sees them only in crops, and a proposer of regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.core.looks import Region
from fieldscope.core.types import Candidate, ImageSource, Query
from fieldscope.retrieval.regions import Proposal

IMAGES = 12
RED, GREEN = (220, 30, 30), (40, 120, 40)
SUBJECTS = {3: (130, 20), 9: (20, 100)}
"""The pictures with a small red subject, and where it is."""

QUERY = Query(id="q", text="a red bird")


def paint_frames(made: Path) -> Path:
    """Twelve green pictures of 160 x 120; a subject of 16 pixels is in two of them."""
    for n in range(IMAGES):
        picture = PILImage.new("RGB", (160, 120), GREEN)
        if n in SUBJECTS:
            picture.paste(RED, (*SUBJECTS[n], SUBJECTS[n][0] + 16, SUBJECTS[n][1] + 16))
        picture.putpixel((0, 0), (n, n, n))  # no two pictures are the same
        picture.save(made / f"{n}.png")
    return made


class Reddest:
    """Proposes the quarters of a picture, the reddest first."""

    def __init__(self, images: ImageSource) -> None:
        self.images = images
        self.asked: list[tuple[str, ...]] = []

    def propose(
        self, texts: Sequence[str], image_ids: Sequence[str], most: int, least_gain: float = 1.5
    ) -> Mapping[str, tuple[Proposal, ...]]:
        self.asked.append(tuple(image_ids))
        quarters = [Region(left=x, top=y, right=x + 0.5, bottom=y + 0.5) for x in (0.0, 0.5) for y in (0.0, 0.5)]
        proposals = {}
        for image_id in image_ids:
            image = self.images.load(image_id)
            redness = [red(image.crop(region.pixels(*image.size))) for region in quarters]
            best = sorted(zip(quarters, redness, strict=True), key=lambda pair: -pair[1])[:most]
            proposals[image_id] = tuple(Proposal(region, share) for region, share in best)
        return proposals

    def gain(self, image_id: str, region: Region) -> float:
        return 1 / region.area


def red(image: PILImage.Image) -> float:
    """The share of an image that is red."""
    pixels = np.asarray(image).astype(int)
    return float(((pixels[..., 0] > 150) & (pixels[..., 1] < 100)).mean())


def short_sighted(images: ImageSource) -> Callable[[LMMRequest], float]:
    """A model that sees a subject where it fills 3 percent of what it is shown."""
    return lambda request: 0.97 if red(images.load(request.images[0].image_id)) > 0.03 else 0.2


def strategy_with(**settings: object) -> Strategy:
    base = load_strategy("yes-no-fused", prompts="fieldnotes").model_dump()
    verify = {**base["verify"], "stop_below": 0.0001}
    inspect = {"regions": 2, "stop_below": 0.01, **settings}
    fusion = {"method": "posterior", "prior_weight": 0.5}
    return Strategy.model_validate({**base, "name": "closer", "verify": verify, "inspect": inspect, "fusion": fusion})


CANDIDATES = tuple(Candidate(f"{n}.png", 1.0 - n / 20, 3.0 - n / 10) for n in range(IMAGES))

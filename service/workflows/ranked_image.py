"""An image of a ranking as a Python program and a notebook want it: its rank, probability and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.workflows.notebook import cut, table, thumbnail

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from fieldscope.core.types import ImageSource

IMAGE_COLUMNS = ("", "rank", "P(match)", "prior rank", "image", "reason")


@dataclass(frozen=True, eq=False)
class RankedImage:
    """An image at its rank (1 is best).

    `score` is what the ranking is sorted by, `p_match` the probability of a match (None where the strategy claims
    none). `prior` is the first stage's score and `prior_rank` the rank before. `rank_low` to `rank_high` holds the rank
    with a probability of 90 %, where it was estimated. `answers` maps each question to the probability of the answer
    that a match must give, None where there is no answer. `why` says what moved the image, by questions and their
    probabilities; `reason` is the LMM's own words where it was asked for them, and else `why`. `kept` says whether it
    reaches the threshold of a promised precision, None where none was asked for. `metadata` has the image's cells by
    column, which no model saw; `alike` the ranked near duplicates and pictures of its burst, itself among them.
    """

    image_id: str
    rank: int
    score: float
    prior: float
    prior_rank: int
    p_match: float | None
    rank_low: int | None
    rank_high: int | None
    reason: str
    why: str
    answers: Mapping[str, float | None]
    path: Path | None
    kept: bool | None
    metadata: Mapping[str, str]
    alike: tuple[str, ...]
    _images: ImageSource = field(repr=False)

    def load(self) -> PILImage.Image:
        """The image as RGB, upright; copy it before drawing on it. Raises `ImageError` where it can't be read."""
        return self._images.load(self.image_id)

    def __repr__(self) -> str:
        p_match = "" if self.p_match is None else f", p_match={self.p_match:.3f}"
        return f"RankedImage({self.rank}, {self.image_id!r}{p_match}, reason={cut(self.reason, 80)!r})"

    def _repr_html_(self) -> str:
        return table(IMAGE_COLUMNS, [image_row(self)], 1)


def image_row(image: RankedImage) -> tuple[str, ...]:
    """The cells of a notebook's table, in `IMAGE_COLUMNS`."""
    p_match = "–" if image.p_match is None else f"{image.p_match:.3f}"
    picture = thumbnail(image._images, image.image_id)
    return (picture, str(image.rank), p_match, str(image.prior_rank), image.image_id, image.reason)

"""The images of a ranking that are exported: those that people accepted, or, where nothing is marked, all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fieldscope.core.errors import ConfigError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.workflows.ranked_image import RankedImage
from fieldscope.service.workflows.ranking import Ranking

ACCEPTED, REJECTED, UNSURE = "accepted", "rejected", "unsure"
MARKS = (ACCEPTED, REJECTED, UNSURE)
"""What people say about an image."""


@dataclass(frozen=True)
class Finds:
    """The `images` to export, best first, of a `ranking`, with people's `marks` by image id."""

    ranking: Ranking
    marks: Mapping[str, str]
    images: tuple[RankedImage, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the metadata."""
        return self.ranking.records.columns

    @property
    def search_id(self) -> str:
        """Names this search in other programs: the same request over the same images has the same."""
        result = self.ranking.result
        ranked = [[image.image_id, image.score] for image in result.ranking]
        return fingerprint({"query": result.query_text, "strategy": result.strategy, "ranking": ranked})[:16]

    def csv(self) -> str:
        """The images as CSV, with marks, reasons and every column of the metadata."""
        return self.ranking.csv({image.image_id for image in self.images}, self.marks)

    def files(self) -> list[Path]:
        """The files of the images that have one of their own."""
        return [image.path for image in self.images if image.path is not None]


def finds_of(ranking: Ranking, marks: Mapping[str, str] | None = None) -> Finds:
    """The accepted images of a ranking, or all of them without any mark. `marks` are `accepted`, `rejected` or `unsure`
    by image id.

    Raises `ConfigError` for another mark, for an image that is not in the ranking, and where no image is accepted.
    """
    marks = marks or {}
    if wrong := next((mark for mark in marks.values() if mark not in MARKS), None):
        raise ConfigError(f"{wrong!r} is no mark; use {', '.join(MARKS)}")
    ranked = {candidate.image_id for candidate in ranking.result.ranking}
    if unknown := next((image_id for image_id in marks if image_id not in ranked), None):
        raise ConfigError(f"{unknown!r} has a mark and is not in the ranking; mark images of this search")
    if not marks:
        return Finds(ranking, marks, ranking[:])
    accepted = tuple(image for image in ranking if marks.get(image.image_id) == ACCEPTED)
    if not accepted:
        raise ConfigError(f"none of {len(marks)} marked images is accepted, so there is nothing to export; accept some")
    return Finds(ranking, marks, accepted)

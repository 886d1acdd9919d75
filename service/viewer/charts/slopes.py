"""Rankings next to each other, with lines between the same images: geometry only; the templates draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.service.viewer.formats import Side, side_of

ROW = 58
"""The height of one place in a ranking, in pixels, as in `compare.css`."""


@dataclass(frozen=True)
class Slope:
    """The line from an image's place on the left to that on the right, between x = 0 and 100. `image` is its number,
    `side` says whether it is further up on the right."""

    image: int
    path: str
    start: float
    end: float
    side: Side


def slopes(left: Sequence[int], right: Sequence[int]) -> list[Slope]:
    """Lines between two rankings of images, by number and best first. An image that only one of them has gets none.
    Lines of the right side's head come last, so that they are drawn above the others."""
    places = {image: place for place, image in enumerate(right)}
    found = [_slope(image, place, places[image]) for place, image in enumerate(left) if image in places]
    return sorted(found, key=lambda slope: -slope.end)


def _slope(image: int, place: int, other: int) -> Slope:
    start, end = ROW * (place + 0.5), ROW * (other + 0.5)
    return Slope(image, f"M0 {start:g}C45 {start:g} 55 {end:g} 100 {end:g}", start, end, side_of(place - other))

"""Which images of a ranked list to label, drawn one after the other with known probabilities.

A random draw takes every image of its side with the same probability. One of the *next* to look at takes an image in
proportion to how uncertain its P(match) is, the standard deviation sqrt(p (1 - p)) of its label: these labels tell most
about how many match (Zrnic and Candes 2024, arXiv 2403.03208). No image's share falls below a floor, since P(match) may
be wrong where it is sure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import sqrt

from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.file import SIDES, LabelFile, LabelLine, ListedImage, Side

FLOOR = 0.1
"""The least uncertainty of an image; the greatest is 0.5."""


def draw_random(file: LabelFile, images: int) -> LabelFile:
    """The file with `images` more random draws, half of them on each side of the line as far as it has so many.

    Raises `ConfigError` where some of the *next* were drawn: what is left of the list is no random part of it.
    """
    if any(line.how == "next" for line in file.lines):
        raise ConfigError(
            "images were drawn with --next since, so the random sample can't grow any more. Use --next for more, or "
            "start another file with --ranking and another --seed."
        )
    left = {side: _remaining(file, side) for side in SIDES}
    above = min(len(left["above"]), max((images + 1) // 2, images - len(left["below"])))
    counts = {"above": above, "below": min(images - above, len(left["below"]))}
    return _with_draws(file, {side: _drawn(file, side, counts[side], "random") for side in SIDES})


def draw_next(file: LabelFile, images: int) -> LabelFile:
    """The file with `images` more draws of those whose labels tell most, on both sides of the line."""
    left = {side: _remaining(file, side) for side in SIDES}
    weights = {side: sum(map(uncertainty, left[side])) for side in SIDES}
    total = sum(weights.values())
    wanted = round(images * weights["above"] / total) if total else 0
    above = min(len(left["above"]), max(wanted, images - len(left["below"])))
    counts = {"above": above, "below": min(images - above, len(left["below"]))}
    return _with_draws(file, {side: _drawn(file, side, counts[side], "next") for side in SIDES})


def uncertainty(listed: ListedImage) -> float:
    """The standard deviation of an image's label if its P(match) is right, and at least `FLOOR`."""
    return max(sqrt(listed.p_match * (1.0 - listed.p_match)), FLOOR)


def _remaining(file: LabelFile, side: Side) -> list[ListedImage]:
    drawn = {line.image for line in file.drawn(side)}
    return [listed for listed in file.ranked.side(side) if listed.image not in drawn]


def _drawn(file: LabelFile, side: Side, count: int, how: str) -> list[LabelLine]:
    """`count` draws from what remains on a side; the same file draws the same."""
    remaining, before = _remaining(file, side), len(file.drawn(side))
    lines = []
    for number in range(before + 1, before + count + 1):
        weights = [1.0 if how == "random" else uncertainty(listed) for listed in remaining]
        chance = random.Random(f"{file.ranked.seed} {side} {number}")
        at = chance.choices(range(len(remaining)), weights)[0]
        probability = weights[at] / sum(weights)
        chosen = remaining.pop(at)
        lines.append(
            LabelLine.model_validate(
                {
                    "image": chosen.image,
                    "how": how,
                    "side": side,
                    "number": number,
                    "probability": probability,
                    "path": chosen.path,
                }
            )
        )
    return lines


def _with_draws(file: LabelFile, drawn: dict[Side, list[LabelLine]]) -> LabelFile:
    """The new lines behind the old ones, the two sides in turn."""
    longest: Sequence[int] = range(max(map(len, drawn.values()), default=0))
    lines = [drawn[side][place] for place in longest for side in SIDES if place < len(drawn[side])]
    return LabelFile(file.ranked, (*file.lines, *lines))

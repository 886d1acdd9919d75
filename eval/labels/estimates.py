"""What labels say of a ranked list: the precision above the line, and how many matches lie below it.

The random draws, up to the first one without a label, are a simple random sample of their side, whose share of matches
has an exact interval (Clopper and Pearson 1934): it holds the true share with at least the stated probability, whatever
that share is. Drawing without replacement makes it hold more often, not less.

The *next* draws prefer uncertain images, so they are left out of that interval. All draws together have one of their
own, which uses their probabilities and holds whenever one stops (`eval/labels/anytime.py`). They also give a weighted
estimate: each draw by itself says how many match, as P(match) has it, corrected by the error of P(match) on the drawn
image over the probability of drawing it (Horvitz and Thompson 1952; one draw after the other, Des Raj 1956). Each is
right on average, however wrong P(match) is, and so is their mean. The errors of the draws are uncorrelated, which gives
its standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil, floor, sqrt

from fieldscope.eval.labels.anytime import anytime_interval
from fieldscope.eval.labels.file import SIDES, LabelFile, LabelLine, ListedImage, Side

_ROUNDING = 1e-9


@dataclass(frozen=True)
class ExactShare:
    """A share of matches with its interval, from `labels` labels of a random sample. Labels that are unsure are in the
    interval as matches at its upper end and as others at its lower one; `estimate` is None where all are unsure."""

    labels: int
    yes: int
    unsure: int
    estimate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class WeightedShare:
    """A share of matches from all `labels` drawn labels by their probabilities, and its standard error (None for fewer
    than two). It is approximate: no interval of it is exact."""

    labels: int
    estimate: float
    standard_error: float | None


@dataclass(frozen=True)
class SideReport:
    """One side of the line with `images` images. `exact` is None without labels of random draws; `weighted` and
    `anytime`, the interval of the share of matches from all draws by their probabilities (`eval/labels/anytime.py`),
    are None unless some of the *next* were labelled. `left_out` labels were of the user's own choice, and `early`
    labels came after a draw that has none yet: they count in neither."""

    side: Side
    images: int
    exact: ExactShare | None
    weighted: WeightedShare | None
    left_out: int
    early: int
    anytime: tuple[float, float] | None = None

    def matches(self, share: float) -> float:
        """A share as a number of images."""
        return share * self.images

    @property
    def match_range(self) -> tuple[int, int] | None:
        """The numbers of matches that the exact interval holds."""
        if self.exact is None:
            return None
        low = ceil(self.matches(self.exact.low) - _ROUNDING)
        return max(low, self.exact.yes), floor(self.matches(self.exact.high) + _ROUNDING)


def report(file: LabelFile, confidence: float) -> tuple[SideReport, SideReport]:
    """What the labels say of the images above the line, and of those below it."""
    above, below = (_side_report(file, side, confidence) for side in SIDES)
    return above, below


def clopper_pearson(low_count: int, high_count: int, labels: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share of which `low_count` to `high_count` out of `labels` were seen."""
    from scipy.stats import beta

    tail = (1.0 - confidence) / 2.0
    low = 0.0 if low_count == 0 else float(beta.ppf(tail, low_count, labels - low_count + 1))
    high = 1.0 if high_count == labels else float(beta.ppf(1.0 - tail, high_count + 1, labels - high_count))
    return low, high


def _side_report(file: LabelFile, side: Side, confidence: float) -> SideReport:
    images, drawn = file.ranked.side(side), file.drawn(side)
    usable = list(takewhile(lambda line: line.label is not None, drawn))
    random = list(takewhile(lambda line: line.how == "random", usable))
    names = {listed.image for listed in images}
    return SideReport(
        side=side,
        images=len(images),
        exact=_exact(random, len(images), confidence) if random else None,
        weighted=_weighted(usable, images) if len(usable) > len(random) else None,
        left_out=sum(line.how == "own" and line.label is not None and line.image in names for line in file.lines),
        early=sum(line.label is not None for line in drawn) - len(usable),
        anytime=_anytime(usable, len(images), confidence) if len(usable) > len(random) else None,
    )


def _anytime(drawn: Sequence[LabelLine], images: int, confidence: float) -> tuple[float, float]:
    lows = [float(line.label == "yes") for line in drawn]
    highs = [float(line.label != "no") for line in drawn]
    return anytime_interval(lows, highs, [line.probability or 1.0 for line in drawn], images, confidence)


def _exact(sample: Sequence[LabelLine], images: int, confidence: float) -> ExactShare:
    labels = len(sample)
    yes, unsure = (sum(line.label == label for line in sample) for label in ("yes", "unsure"))
    if labels == images:  # nothing is left to chance
        low, high = yes / labels, (yes + unsure) / labels
    else:
        low, high = clopper_pearson(yes, yes + unsure, labels, confidence)
    return ExactShare(labels, yes, unsure, yes / (labels - unsure) if unsure < labels else None, low, high)


def _weighted(drawn: Sequence[LabelLine], images: Sequence[ListedImage]) -> WeightedShare:
    """An unsure label counts as P(match) has it: it corrects nothing."""
    p_match = {listed.image: listed.p_match for listed in images}
    errors = [0.0 if line.label == "unsure" else float(line.label == "yes") - p_match[line.image] for line in drawn]
    expected, known = sum(p_match.values()), 0.0
    if len(drawn) == len(images):
        return WeightedShare(len(drawn), (expected + sum(errors)) / len(images), 0.0)
    totals = []
    for line, error in zip(drawn, errors, strict=True):
        totals.append(expected + known + error / (line.probability or 1.0))
        known += error
    mean = sum(totals) / len(totals)
    spread = sum((total - mean) ** 2 for total in totals)
    steps = len(totals)
    standard_error = sqrt(spread / (steps * (steps - 1))) if steps > 1 else None
    return WeightedShare(
        labels=steps,
        estimate=min(max(mean / len(images), 0.0), 1.0),
        standard_error=None if standard_error is None else standard_error / len(images),
    )

"""The decision that no image matches a query: where the best P(match) lies below a threshold from validation.

A ranking always has a first image. Whether that image is worth acting on is a decision of its own, about the query: the
greatest P(match) of all images that were judged, against a threshold that `calibrate` chooses on a validation split.
With it come the images that are nearest, by how many parts of the query hold, and the parts that hold of no image.

What was not judged is no match and no miss: where a budget ended the questions nothing is decided, and an image about
which questions failed does not count among the judged ones unless an answer refutes it.
"""

from __future__ import annotations

import numpy as np

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.posterior import Belief
from fieldscope.agent.types import NothingMatches, RankedCandidate

NOTHING_BELOW = 0.3
"""The threshold without a calibration: of a model that was never measured, a best P(match) below it is no match."""

SAID_NO = 0.5
"""The threshold of strategies that ask one question, about the whole query: the model says no to every image. On
FieldNotes' validation split it says so of no query that has a match."""

NEAREST = 10
"""How many of the nearest images are kept."""


def threshold_of(calibration: Calibration, *, composed: bool = False, looked: bool = False) -> float:
    """Below which best P(match) nothing is said to match: for queries with a reference image, for others at whose
    images closer looks were taken, and for all others."""
    own = calibration.looked_nothing_below if looked else None
    own = calibration.composed_nothing_below if composed else own
    return next(value for value in (own, calibration.nothing_below, NOTHING_BELOW) if value is not None)


def none_is_confirmed(belief: Belief) -> bool:
    """Whether no image is a match rather than not, by answers that would say of other queries that nothing matches. A
    reference image that was described wrongly makes the decision harder to believe, and not the answers better."""
    best, usual = belief.p_best, threshold_of(belief.calibration, looked=bool(belief.looks))
    return can_decide(belief) and best is not None and best < min(usual, 0.5)


def can_decide(belief: Belief) -> bool:
    """Whether an image was judged and no budget ended the questions."""
    return not belief.cut_short and bool(belief.judged.any())


def nothing_matches(belief: Belief) -> NothingMatches | None:
    """The decision, before comparisons; None where an image seems to match, where no image was judged, and where a
    budget ended the questions."""
    threshold = threshold_of(belief.calibration, composed=belief.composed, looked=bool(belief.looks))
    best = belief.p_best
    if not can_decide(belief) or best is None or best >= threshold:
        return None
    parts, answered = ~belief.whole, belief.has_answer
    holds = answered & (belief.holds_together > 0.5)
    near = np.argsort(-belief.parts_held, kind="stable")[:NEAREST]
    return NothingMatches(
        statistic=best,
        threshold=threshold,
        judged=int(belief.judged.sum()),
        failing=tuple(
            predicate.id
            for k, predicate in enumerate(belief.predicates)
            if parts[k] and answered[:, k].any() and not holds[:, k].any()
        ),
        nearest=tuple(belief.candidates[i].image_id for i in near if (holds & parts)[i].any()),
    )


def nothing_by_answers(ranking: tuple[RankedCandidate, ...], cut_short: bool) -> NothingMatches | None:
    """The decision for a strategy that asks one question about the whole query: it has no parts to name."""
    claims = [ranked.p_match for ranked in ranking if ranked.p_match is not None]
    if cut_short or not claims or max(claims) >= SAID_NO:
        return None
    return NothingMatches(statistic=max(claims), threshold=SAID_NO, judged=len(claims))

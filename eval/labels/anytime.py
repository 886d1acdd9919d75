"""An interval of a share from draws with known, unequal probabilities that holds whenever one stops.

Each draw takes an image that was not drawn before; what it says of the whole list, the matches drawn so far and its own
label over the probability of the draw, is right on average whatever was drawn before (Des Raj 1956). So a bet against a
share that is too low gains nothing on average where the share is no higher, and the chance that its wealth ever reaches
1 / alpha is at most alpha (Ville's inequality). The interval holds the shares against which no bet did (Waudby-Smith
and Ramdas 2023, arXiv 2010.09686; weighted draws: Shekhar et al. 2023, arXiv 2305.06884). It needs no assumption about
how good P(match) is, and labels may decide what is drawn next and when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BETS = np.geomspace(0.01, 0.95, 16)
"""Shares of the greatest stake that can't lose all; the wealth is the mean over them."""

_SHARES = 1001  # candidate shares, evenly spaced


def anytime_interval(
    lows: Sequence[float], highs: Sequence[float], probabilities: Sequence[float], images: int, confidence: float
) -> tuple[float, float]:
    """The interval of the share of matches among `images`, with this confidence, from the draws in their order.

    `lows` and `highs` are 0 or 1, and differ where a label is unsure; `probabilities` are those of each draw, among the
    images that were not drawn before it.
    """
    alpha = (1.0 - confidence) / 2.0
    if len(lows) == images:  # nothing is left to chance
        return float(np.mean(lows)), float(np.mean(highs))
    low = _lowest(np.array(lows, dtype=np.float64), np.array(probabilities), images, alpha)
    high = 1.0 - _lowest(1.0 - np.array(highs, dtype=np.float64), np.array(probabilities), images, alpha)
    return low, max(high, low)


def _lowest(labels: Floats, probabilities: Floats, images: int, alpha: float) -> float:
    """The lowest share that the labels do not refute."""
    known = np.concatenate([[0.0], np.cumsum(labels)[:-1]])
    said = (known + labels / probabilities) / images
    shares = np.linspace(0.0, 1.0, _SHARES)[1:]
    stakes = _BETS[:, None] / shares  # so that no draw can lose more than the stake: it says 0 or more
    wealth = np.zeros_like(stakes)
    most = np.full(len(shares), -np.inf)
    for value in said:
        wealth += np.log1p(stakes * (value - shares))
        most = np.maximum(most, np.logaddexp.reduce(wealth, axis=0) - np.log(len(_BETS)))
    refuted = most >= np.log(1.0 / alpha)
    lowest = shares[int(np.argmin(refuted))] if not refuted.all() else 1.0
    step = shares[0]
    return float(max(lowest - step if lowest > step else 0.0, labels.sum() / images))

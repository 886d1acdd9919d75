"""Merging comparisons with what is believed already.

Each candidate has a log-odds of a match, u. Bradley and Terry (1952) say that of two candidates the first is chosen
with the log-odds u_i - u_j, and Luce's choice axiom (1959; Plackett 1975) that of several each is chosen with a
probability proportional to exp(u). A person only says which; a model says how probable, and so the log-probabilities
themselves are an observation of u, up to a constant that the candidates of one showing share. They are taken as such,
with normal noise: least squares on log-odds, as in HodgeRank (Jiang, Lim, Yao and Ye 2011, arXiv 0811.1067), under a
normal prior.

The likelihood of soft labels would be the other way. It counts a probability near 0 or 1 for no more than a choice, and
a clear winner that was expected for almost nothing. On log-odds a clear winner tells as much as it should, the
posterior is exact and in closed form (Newton's first step is the last, and Laplace's approximation the truth), what is
shown first is favoured by the same amount in both orders of a pair and so cancels, and no comparison can make anything
less certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Showing = tuple[Sequence[int], Sequence[float]]
"""Which of the candidates were shown, in that order, and P(best) of each, strictly between 0 and 1."""


@dataclass(frozen=True)
class MergedComparisons:
    """What is believed of n candidates' log-odds after their comparisons: `mean` (n,) and `covariance` (n, n)."""

    mean: Floats
    covariance: Floats

    def difference(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation, both (n, n), of each candidate's log-odds minus each other's."""
        variance = np.diag(self.covariance)
        spread = variance[:, np.newaxis] + variance - 2.0 * self.covariance
        return self.mean[:, np.newaxis] - self.mean, np.sqrt(np.maximum(spread, 0.0))


def merge_comparisons(
    mean: Floats, spread: float, showings: Iterable[Showing], *, weight: float = 1.0, position_bias: float = 0.0
) -> MergedComparisons:
    """The belief N(`mean`, `spread`^2 I) about n candidates after `showings` of any number of them.

    Each log-probability is its candidate's log-odds, plus a constant of the showing, plus noise of variance
    1 / `weight`: `weight` (at least 0) is how much a comparison's evidence counts, and with 0 the belief stays as it
    was. One showing of a pair is thus an observation of u_i - u_j with variance 2 / `weight`, both orders are one with
    1 / `weight`. `position_bias` is the log-odds for whatever is shown first, and is taken off.
    """
    n = len(mean)
    precision, pull = np.zeros((n, n)), np.zeros(n)
    for shown, probabilities in showings:
        at = np.asarray(shown, dtype=np.intp)
        # What all candidates of a showing share says nothing about any of them.
        centre = np.eye(len(at)) - 1.0 / len(at)
        observed = np.log(np.asarray(probabilities, dtype=np.float64))
        observed[0] -= position_bias
        precision[np.ix_(at, at)] += weight * centre
        pull[at] += weight * centre @ (observed - mean[at])
    covariance = spread**2 * np.linalg.inv(np.eye(n) + spread**2 * precision)
    covariance = (covariance + covariance.T) / 2.0
    return MergedComparisons(mean + covariance @ pull, covariance)

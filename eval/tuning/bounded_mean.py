"""An exact test of the mean of losses between 0 and 1: no distribution is assumed, and none is approximated.

The p-value is Hoeffding's and Bentkus's, the smaller of the two (Bates et al. 2021, arXiv 2101.02703): both bound the
same tail, so that nothing is paid for taking the smaller one.
"""

from __future__ import annotations

from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MOST_LOSSES = 10**6
_SEARCHED = 10**4


def p_values(mean_losses: ArrayLike, counts: ArrayLike, limit: float) -> Floats:
    """How likely a mean loss this low would be if the expected loss were `limit` (between 0 and 1) or more.

    `mean_losses` are the means of `counts` independent losses, each between 0 and 1; the p-value of no losses is 1.
    """
    from scipy.stats import binom

    counts = np.asarray(counts, dtype=np.float64)
    means = np.where(counts > 0, mean_losses, 1.0)
    hoeffding = np.exp(-counts * _divergence(np.minimum(means, limit), limit))
    # Rounded up first to the ninth digit: a mean of whole losses is not quite a whole number again.
    bentkus = np.e * binom.cdf(np.ceil(np.round(counts * means, 9)), counts, limit)
    return np.where(counts > 0, np.minimum(np.minimum(hoeffding, bentkus), 1.0), 1.0)


def losses_needed(mean_loss: float, limit: float, alpha: float) -> int | None:
    """The fewest losses of this mean whose p-value is `alpha` or less; None where no number of them is enough, or more
    than a million are needed."""
    divergence = float(_divergence(np.array(mean_loss), limit)) if mean_loss < limit else 0.0
    if divergence < log(1.0 / alpha) / _MOST_LOSSES:
        return None
    enough = ceil(log(1.0 / alpha) / divergence)  # for Hoeffding's; Bentkus's may need fewer
    fewer = np.arange(1, min(enough, _SEARCHED))
    passing = np.flatnonzero(p_values(mean_loss, fewer, limit) <= alpha)
    return int(fewer[passing[0]]) if len(passing) else enough


def highest_passing(count: int, limit: float, alpha: float) -> float | None:
    """The highest mean of `count` losses whose p-value is `alpha` or less; None where that of 0 is greater."""
    if p_values(0.0, count, limit) > alpha:
        return None
    means = np.linspace(0.0, limit, 10_001)
    return float(means[np.flatnonzero(p_values(means, np.full(means.shape, count), limit) <= alpha)[-1]])


def _divergence(mean: Floats, limit: float) -> Floats:
    """The Kullback-Leibler divergence of a coin of this mean from one of the mean `limit`."""
    from scipy.special import rel_entr

    return np.asarray(rel_entr(mean, limit) + rel_entr(1.0 - mean, 1.0 - limit))

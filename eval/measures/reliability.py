"""Whether probabilities mean what they say: reliability diagrams, calibration errors and Brier scores. Pure and seeded.

Of all things that are claimed with a probability of 0.7, seven in ten should be so. The expected calibration error is
the mean distance between the two over bins, weighted by how many claims each holds (Guo et al. 2017, "On calibration of
modern neural networks", arXiv 1706.04599). Here it is that of the probability that something holds, and not that of
whichever side is more probable: a "no" with 0.9 is a claim of 0.1. Bins of equal width are theirs, 15 of them; bins of
equal mass hold equally many claims each (Nixon et al. 2019, "Measuring calibration in deep learning", arXiv
1904.01685), which tells more where most probabilities lie near 0 and 1. The Brier score is the mean squared error
(Brier 1950), and unlike the others it is not 0 for claiming the base rate of everything.

Claims about one query depend on each other, so intervals are from a bootstrap over queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

BINS = 15
DRAWS = 1_000
LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Claims:
    """n claims that something holds: the probabilities `p` (n,), whether it `held` (n,), and of which `query` (n,), by
    number, each claim is."""

    p: Floats
    held: NDArray[np.bool_]
    query: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.p.shape == self.held.shape == self.query.shape or self.p.ndim != 1:
            raise ValueError("claims are three lists of one length")
        if not ((self.p >= 0) & (self.p <= 1)).all():
            raise ValueError("a probability lies between 0 and 1")


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that holds it with a confidence of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """The `count` claims with probabilities above `low` and up to `high` (the first bin holds 0, too): their mean
    probability, and the share that held, with its interval."""

    low: float
    high: float
    count: int
    mean_p: float
    held: Estimate


@dataclass(frozen=True)
class Reliability:
    """How far claims can be trusted: of `claims` over `queries`, the share that held, calibration errors and Brier
    score, all between 0 and 1, and the bins that have claims, of equal width and of equal mass."""

    claims: int
    queries: int
    mean_p: float
    held: float
    ece: Estimate
    ece_mass: Estimate
    brier: Estimate
    bins: tuple[Bin, ...]
    mass_bins: tuple[Bin, ...]


def claims(rows: Mapping[str, list[tuple[float, bool]]]) -> Claims:
    """Claims from query id to (probability, whether it held)."""
    flat = [(p, held, number) for number, of_query in enumerate(rows.values()) for p, held in of_query]
    p, held, query = zip(*flat, strict=True) if flat else ((), (), ())
    return Claims(np.array(p, dtype=np.float64), np.array(held, dtype=np.bool_), np.array(query, dtype=np.int64))


def reliability(measured: Claims, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> Reliability:
    """Measure claims. The edges of bins of equal mass stay those of all claims in every draw of the bootstrap.

    Raises ValueError without a claim.
    """
    if not measured.p.size:
        raise ValueError("there is no claim to measure")
    numbers, query = np.unique(measured.query, return_inverse=True)
    queries = len(numbers)
    # The first row is the claims themselves, the others say how often a draw took each query.
    drawn = np.random.default_rng(seed).multinomial(queries, np.full(queries, 1.0 / queries), size=draws)
    weights = np.concatenate([np.ones((1, queries)), drawn])
    count = weights @ np.bincount(query, minlength=queries)
    error = weights @ np.bincount(query, (measured.p - measured.held) ** 2, minlength=queries)
    ece, equal = _binned(measured, query, weights, np.arange(bins + 1) / bins)
    ece_mass, mass = _binned(measured, query, weights, equal_mass(measured.p, bins))
    return Reliability(
        claims=measured.p.size,
        queries=queries,
        mean_p=float(measured.p.mean()),
        held=float(measured.held.mean()),
        ece=ece,
        ece_mass=ece_mass,
        brier=_estimate(error / count),
        bins=equal,
        mass_bins=mass,
    )


def equal_mass(p: ArrayLike, bins: int = BINS) -> Floats:
    """Edges from 0 to 1 between which equally many of the probabilities lie. Equal ones stay together, so there may be
    fewer bins, and of unequal mass."""
    inner = np.quantile(np.asarray(p), np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def tempered(p: ArrayLike, weight: float) -> Floats:
    """Probabilities, strictly between 0 and 1, with their log-odds multiplied by a weight: temperature scaling as of
    Guo et al. for the weight 1 / temperature."""
    return np.asarray(expit(weight * logit(np.asarray(p, dtype=np.float64))))


def _binned(
    measured: Claims, query: NDArray[np.intp], weights: Floats, edges: Floats
) -> tuple[Estimate, tuple[Bin, ...]]:
    """The calibration error, and the bins with claims, between `edges`; `weights` (draws, queries)."""
    bins, queries = len(edges) - 1, weights.shape[1]
    place = np.maximum(np.searchsorted(edges, measured.p, side="left") - 1, 0)
    cell = query * bins + place

    def sums(values: ArrayLike) -> Floats:
        """(draws, bins)"""
        added = np.bincount(cell, np.asarray(values, dtype=np.float64), minlength=queries * bins)
        return np.asarray(weights @ added.reshape(queries, bins))

    count, claimed, held = sums(np.ones(measured.p.size)), sums(measured.p), sums(measured.held)
    ece = _estimate(np.abs(claimed - held).sum(axis=1) / count.sum(axis=1))
    filled = []
    for b in np.flatnonzero(count[0]):
        drawn = count[:, b] > 0
        share = _estimate(held[drawn, b] / count[drawn, b])
        mean = float(claimed[0, b] / count[0, b])
        filled.append(Bin(float(edges[b]), float(edges[b + 1]), int(count[0, b]), mean, share))
    return ece, tuple(filled)


def _estimate(values: Floats) -> Estimate:
    """The first value is that of all claims, the others are those of the draws."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(values) > 1 else values[[0, 0]]
    return Estimate(float(values[0]), float(low), float(high))

"""Shapley values (Shapley 1953): what each player of a game adds to its worth, whatever the order in which they come.

A player's share is the mean, over all orders, of what the worth grows by when that player comes. So the shares sum to
what all add together, players that do the same get the same, and one that changes nothing gets 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_EXACT = 14
"""Of up to so many players that change something all coalitions are counted, 2 to the power of their number."""

ORDERS = 1024
"""Of more, so many orders are drawn, with a fixed seed."""


def shapley(absent: Floats, present: Floats, worth: Callable[[Floats], Floats]) -> Floats:
    """(n,) shares of n players.

    A coalition is worth `worth` of a sum over all players, of `present` (n, d) for its members and of `absent` (n, d)
    for the others; `worth` takes sums (m, d) and gives (m,). Of more than `MOST_EXACT` players the shares are estimates
    that still sum to what all add together, and that no order of the players changes.
    """
    shares = np.zeros(len(absent))
    playing = np.flatnonzero((absent != present).any(axis=1))
    idle = np.delete(absent, playing, axis=0).sum(axis=0)
    count = _exact if len(playing) <= MOST_EXACT else _drawn
    shares[playing] = count(absent[playing], present[playing], lambda sums: worth(idle + sums))
    return shares


def _exact(absent: Floats, present: Floats, worth: Callable[[Floats], Floats]) -> Floats:
    n = len(absent)
    sums, sizes = np.zeros((1, absent.shape[1])), np.zeros(1, dtype=np.int64)  # row by row, every coalition
    for without, having in zip(absent, present, strict=True):
        sums, sizes = np.concatenate([sums + without, sums + having]), np.concatenate([sizes, sizes + 1])
    worths = worth(sums)
    weights = np.array([1.0 / (n * comb(n - 1, size)) for size in range(n)])
    shares = np.empty(n)
    for player in range(n):  # the axis in the middle says whether the player is in the coalition
        pairs, others = (each.reshape(-1, 2, 2**player) for each in (worths, sizes))
        shares[player] = (weights[others[:, 0]] * (pairs[:, 1] - pairs[:, 0])).sum()
    return shares


def _drawn(absent: Floats, present: Floats, worth: Callable[[Floats], Floats]) -> Floats:
    """Each order is drawn forwards and backwards, over the players sorted by what they do."""
    n, by_value = len(absent), np.lexsort(np.hstack([absent, present]).T)
    forwards = np.random.default_rng(0).permuted(np.tile(by_value, (ORDERS // 2, 1)), axis=1)
    orders = np.concatenate([forwards, forwards[:, ::-1]])
    gains = (present - absent)[orders].cumsum(axis=1)
    sums = absent.sum(axis=0) + np.concatenate([np.zeros_like(gains[:, :1]), gains], axis=1)
    steps = np.diff(worth(sums.reshape(-1, sums.shape[-1])).reshape(len(orders), n + 1), axis=1)
    return np.bincount(orders.ravel(), weights=steps.ravel(), minlength=n) / len(orders)

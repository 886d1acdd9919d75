"""How far rankings of the same queries move: when the model is asked again, and when a query is said in other words.

Pure: the runs are made by the workflows. Of each query there are several rankings, and each is compared with the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fieldscope.eval.measures.paired import Mean, means

HEAD = 10
"""The ranks that a person looks at."""

DRAWS = 9_999
LEVEL = 0.95

Parts = Sequence[tuple[float, float]]
"""For each query, how much of how much."""


@dataclass(frozen=True)
class Share:
    """A share of `of` things, from 0 to 1, between `low` and `high` with a confidence of 95 %."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class Repeated:
    """A query under its several rankings, the first of which the others are compared with.

    `rankings` are image ids, best first. `values` are the headline metric of each, empty where the query has nothing to
    find. `yes` has, for each ranking, the verdicts that were answered: image and question, and whether P(yes) is at
    least 0.5; it is empty where the questions are not the same.
    """

    rankings: Sequence[Sequence[str]]
    values: Sequence[float] = ()
    yes: Sequence[Mapping[tuple[str, str], bool]] = ()


@dataclass(frozen=True)
class Spread:
    """The difference between a query's best and worst value: its mean over queries, and the query where it is greatest.
    `first` is the mean of the first rankings, `lowest` that of each query's worst."""

    mean: Mean
    worst: float
    worst_query: str
    first: float
    lowest: float


@dataclass(frozen=True)
class Steadiness:
    """What moves between the rankings of a query, on average over its later rankings.

    `first_place` is the share in which another image is first, `places` the share of the first ten places that have
    another image, `left` the share of the ten best images that are no longer among the ten best, and `moved` by how
    many ranks these ten move. `spread` is None where no query has anything to find, `flips` (the share of verdicts that
    change sides) where the questions are not the same, or no verdict was given in two rankings.
    """

    queries: int
    rankings: int
    first_place: Share
    places: Share
    left: Share
    moved: Mean
    spread: Spread | None = None
    flips: Share | None = None


def steadiness(repeated: Mapping[str, Repeated]) -> Steadiness:
    """What moves over queries with two or more rankings each. Raises ValueError without any."""
    queries = {name: query for name, query in repeated.items() if len(query.rankings) > 1}
    if not queries:
        raise ValueError("steadiness needs queries with two or more rankings")
    every = list(queries.values())
    moved = means([tuple(float(np.mean([_moved(q.rankings[0], other) for other in q.rankings[1:]])) for q in every)])
    flips = [_flips(query) for query in every]
    return Steadiness(
        queries=len(every),
        rankings=max(len(query.rankings) for query in every),
        first_place=share([_first_place(query) for query in every]),
        places=share([_places(query) for query in every]),
        left=share([_left(query) for query in every]),
        moved=moved[0],
        spread=_spread({name: query.values for name, query in queries.items() if len(query.values) > 1}),
        flips=share(flips) if any(of for _, of in flips) else None,
    )


def share(parts: Parts) -> Share:
    """A share with its bootstrap interval over queries, since what belongs to one query is alike. Where no query has
    any of it, or all have nothing else, resampling shows no doubt: there the open end is that of the exact interval
    (Clopper and Pearson 1934) with the query as unit."""
    some, of = np.array(parts, dtype=np.float64).T
    value = float(some.sum() / of.sum())
    queries = int((of > 0).sum())
    doubt = 1 - ((1 - LEVEL) / 2) ** (1 / queries)
    if value in (0.0, 1.0):
        low, high = (0.0, doubt) if value == 0 else (1 - doubt, 1.0)
        return Share(value, low, high, int(of.sum()))
    chance = np.random.default_rng(0)
    counts = chance.multinomial(len(some), np.full(len(some), 1 / len(some)), size=DRAWS)
    totals = counts @ of
    drawn = (counts @ some)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Share(value, low, high, int(of.sum()))


def _first_place(query: Repeated) -> tuple[float, float]:
    first, *others = query.rankings
    return sum(other[:1] != first[:1] for other in others), len(others)


def _places(query: Repeated) -> tuple[float, float]:
    first, *others = query.rankings
    head = first[:HEAD]
    changed = sum(place >= len(other) or other[place] != image for other in others for place, image in enumerate(head))
    return changed, len(head) * len(others)


def _left(query: Repeated) -> tuple[float, float]:
    first, *others = query.rankings
    head = first[:HEAD]
    return sum(image not in other[:HEAD] for other in others for image in head), len(head) * len(others)


def _moved(first: Sequence[str], other: Sequence[str]) -> float:
    """By how many ranks the ten best move on average; an image that is gone is behind all others."""
    ranks = {image: rank for rank, image in enumerate(other)}
    moves = [abs(ranks.get(image, len(other)) - rank) for rank, image in enumerate(first[:HEAD])]
    return sum(moves) / len(moves) if moves else 0.0


def _flips(query: Repeated) -> tuple[float, float]:
    if len(query.yes) < 2:
        return 0.0, 0.0
    first, *others = query.yes
    shared = [(first[key], side) for other in others for key, side in other.items() if key in first]
    return sum(before != after for before, after in shared), len(shared)


def _spread(values: Mapping[str, Sequence[float]]) -> Spread | None:
    if not values:
        return None
    ranges = {name: max(own) - min(own) for name, own in values.items()}
    worst = max(ranges, key=lambda name: ranges[name])
    return Spread(
        mean=means([tuple(ranges.values())])[0],
        worst=ranges[worst],
        worst_query=worst,
        first=float(np.mean([own[0] for own in values.values()])),
        lowest=float(np.mean([min(own) for own in values.values()])),
    )

"""A threshold of P(match) with a promise of precision, from labelled queries (Learn then Test, arXiv 2110.01052).

The unit is the query: its loss at a threshold is the share of its kept images that do not match, between 0 and 1. A
query for which nothing is kept has no loss and says nothing. So what is promised is the mean, over queries like the
labelled ones for which something is kept, of the share of kept images that match.

Precision need not rise with the threshold, so every threshold is a hypothesis of its own: that the expected loss is
above what the promise allows. Thresholds are tested from strict to loose along a fixed grid, and a sequence ends with
the first one that the labels do not carry; so no correction is paid for the length of the grid. The loosest threshold
that passed is chosen. The strictest thresholds of the grid keep too few images to be carried by any labels, so a
sequence starts where a probability that is right suffices for the promise: at P(match) equal to the promised precision.
Many labelled queries carry a second, stricter start, for models that are too sure of themselves; the two share the risk
of a wrong promise equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.tuning.bounded_mean import Floats, highest_passing, losses_needed, p_values
from fieldscope.eval.types import Qrels

GRID = np.array([0.999, 0.998, 0.995, *(percent / 100 for percent in range(99, 0, -1))])
"""The thresholds that may be chosen, from strict to loose."""

MANY = 100
"""From this many labelled queries on there are two starts."""

STRICTER = 10.0
"""How many times the odds of the first start the second one has."""


@dataclass(frozen=True)
class LabelledQuery:
    """A ranking's P(match) (n,) of its images, whether each of them matches (n,), and how many matches there are in
    all, those that were not ranked among them."""

    p_match: Floats
    matches: Floats
    positives: int


@dataclass(frozen=True)
class Cutoff:
    """A threshold of P(match), and what is promised of the images that reach it.

    `precision` is promised with `confidence`, on the ground of `queries` labelled queries. Something was kept for
    `kept_for` of them, with the mean precision `observed`; `recall` is the mean share of a query's matches that were
    kept, None where no query has a match.
    """

    threshold: float
    precision: float
    confidence: float
    queries: int
    kept_for: int
    observed: float
    recall: float | None


@dataclass(frozen=True)
class LabelledSplit:
    """Labelled queries with their losses at each threshold of the grid."""

    queries: tuple[LabelledQuery, ...]

    @cached_property
    def losses(self) -> Floats:
        """(queries, thresholds) shares of kept images that do not match; NaN where nothing is kept."""
        return np.array([_losses(query) for query in self.queries]).reshape(len(self.queries), len(GRID))

    @cached_property
    def recalls(self) -> Floats:
        """(queries, thresholds) shares of a query's matches that are kept; NaN where it has none."""
        return np.array([_recalls(query) for query in self.queries]).reshape(len(self.queries), len(GRID))

    def cutoff(self, precision: float, confidence: float) -> Cutoff:
        """The loosest threshold that carries the promise. Raises `ConfigError` where none does; it says how many
        labelled queries are needed."""
        passing = passing_thresholds(self.losses, precision, confidence)
        if not passing.any():
            raise ConfigError(self._refusal(precision, confidence))
        at = int(np.flatnonzero(passing)[-1])
        losses, recalls = self.losses[:, at], self.recalls[:, at]
        return Cutoff(
            threshold=float(GRID[at]),
            precision=precision,
            confidence=confidence,
            queries=len(self.queries),
            kept_for=int(np.isfinite(losses).sum()),
            observed=1.0 - float(np.nanmean(losses)),
            recall=float(np.nanmean(recalls)) if np.isfinite(recalls).any() else None,
        )

    def _refusal(self, precision: float, confidence: float) -> str:
        """Why no threshold carries the promise, and what would: at the start of the more hopeful sequence."""
        count, limit, risk = len(self.queries), 1.0 - precision, 1.0 - confidence
        begins = starts(precision, count)
        means, counts = _means(self.losses[:, begins])
        best = int(np.lexsort((-counts, p_values(means, counts, limit)))[0])
        kept_for, loss = int(counts[best]), float(means[best])
        least, highest = losses_needed(0.0, limit, risk), highest_passing(kept_for, limit, risk / len(begins))
        where = f"images with P(match) of {GRID[begins[best]]:g} or more"
        promise = f"A precision of {precision:g} at a confidence of {confidence:g} can't be promised"
        if not kept_for:
            return (
                f"{promise}: none of the {count} labelled queries has {where}. Add labelled queries, {least} of which "
                "must have such images, or lower the precision."
            )
        have = f"{kept_for} of {count} labelled queries have {where}, with a precision of {1.0 - loss:.3f}"
        if highest is None:
            carried = f"so few carry no such promise, since {least} are needed even where every kept image matches"
        else:
            carried = f"so many carry the promise only with a precision of {_rounded_up(1.0 - highest)} or more"
        needed = self._needed(loss, kept_for, limit, risk)
        if needed is None:
            advice = "At this precision no number of labelled queries would be enough. Lower the precision."
        else:
            advice = f"At this precision {needed:,} labelled queries are needed. Add some, or lower the precision."
        return f"{promise}: {have}; {carried}. {advice}"

    def _needed(self, loss: float, kept_for: int, limit: float, risk: float) -> int | None:
        """How many labelled queries like these would carry the promise; None where no number would."""
        per_kept = len(self.queries) / kept_for
        for number_of_starts in (1, 2):
            losses = losses_needed(loss, limit, risk / number_of_starts)
            if losses is None:
                return None
            needed = ceil(max(losses, kept_for + 1) * per_kept)
            if number_of_starts == 1 and needed < MANY:
                return needed
        return max(needed, MANY)


def starts(precision: float, queries: int) -> list[int]:
    """Where sequences of tests begin, as places in the grid: a number of labelled queries decides how many do, and no
    label does."""
    odds = precision / (1.0 - precision)
    wanted = [precision] if queries < MANY else [precision, STRICTER * odds / (1.0 + STRICTER * odds)]
    return sorted({int(np.flatnonzero(_reaches(threshold))[-1]) for threshold in wanted})


def passing_thresholds(losses: Floats, precision: float, confidence: float) -> NDArray[np.bool_]:
    """(thresholds,) which of the grid's thresholds the losses (queries, thresholds) carry.

    The probability that any of them has a population precision below `precision` is at most 1 - `confidence`.
    """
    means, counts = _means(losses)
    begins = starts(precision, len(losses))
    small = p_values(means, counts, 1.0 - precision) <= (1.0 - confidence) / len(begins)
    passing = np.zeros(len(small), dtype=np.bool_)
    for begin in begins:
        passing[begin:] |= np.logical_and.accumulate(small[begin:])
    return passing


def labelled_split(results: Mapping[str, RerankResult], judgments: Qrels) -> LabelledSplit:
    """The labelled queries of a run. An image without a judgment counts as not matching, as in the run's metrics.
    Raises `ConfigError` where the strategy claims no probability."""
    if all(ranked.p_match is None for result in results.values() for ranked in result.ranking):
        raise ConfigError(
            "the labelled run has no P(match), so it carries no promise. Evaluate a strategy that claims one, such as "
            "agent."
        )
    return LabelledSplit(tuple(_labelled(results[query], judgments.get(query, {})) for query in results))


def _labelled(result: RerankResult, judgments: Mapping[str, int]) -> LabelledQuery:
    """Where nothing is said to match, nothing is kept."""
    kept = result.nothing is None
    p_match = [ranked.p_match if kept and ranked.p_match is not None else np.nan for ranked in result.ranking]
    matches = [float(judgments.get(ranked.image_id, 0) > 0) for ranked in result.ranking]
    return LabelledQuery(np.array(p_match), np.array(matches), sum(judgment > 0 for judgment in judgments.values()))


def _means(losses: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The mean loss at each threshold, over the queries for which something is kept, and the number of these."""
    counts = np.isfinite(losses).sum(axis=0)
    return np.asarray(np.nansum(losses, axis=0) / np.maximum(counts, 1)), counts


def _losses(query: LabelledQuery) -> Floats:
    kept = query.p_match[:, None] >= GRID
    sizes = kept.sum(axis=0)
    return np.where(sizes > 0, (kept * (1.0 - query.matches[:, None])).sum(axis=0) / np.maximum(sizes, 1), np.nan)


def _recalls(query: LabelledQuery) -> Floats:
    if not query.positives:
        return np.full(len(GRID), np.nan)
    found = ((query.p_match[:, None] >= GRID) * query.matches[:, None]).sum(axis=0)
    return np.asarray(found / query.positives)


def _reaches(threshold: float) -> NDArray[np.bool_]:
    """(thresholds,) which are as strict as this one; the strictest always is."""
    strict = threshold - 1e-9 <= GRID
    strict[0] = True
    return strict


def _rounded_up(value: float) -> str:
    return f"{ceil(value * 1000) / 1000:.3f}"

"""The parts of an image's score as a chart of bars, in log-odds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.agent.trace_why import Part, Why

WIDTH = 1000.0
"""The chart's width in its own units."""

_MARGIN = 0.02  # of the span of values, on both sides
_EXACT = 1e-6

_SUMS = "Each bar starts where the one above ends. Their sum is the score, in log-odds of a match."
_ALONE = "Each bar shows one answer on its own, in log-odds. This strategy does not add them up."
_NOTHING = "No question about this image has an answer, so the prior decides its rank."
_METHODS = {
    "prior": "This strategy asks no model: the score is the prior.",
    "score": "The score of this strategy is that of its scoring model. Equal ones are ordered by the prior.",
    "p_yes": "The score of this strategy is P(yes). The bar shows it in log-odds.",
    "agreement": "This strategy counts the questions with the expected answer; images confirmed by a final check go to "
    "the top. Each bar shows one answer on its own, in log-odds.",
}


@dataclass(frozen=True)
class Bar:
    """One part. It goes from `start` to `end` in log-odds, `value` apart; `x` and `width` are in the chart's units.

    `part` has the predicate and the verdict behind it, where there is one.
    """

    part: Part
    value: float
    start: float
    end: float
    x: float
    width: float
    x_start: float
    x_end: float


@dataclass(frozen=True)
class Chart:
    """The bars in the order in which a score comes to be: base, prior, scorer, predicates, comparisons.

    `sums` says that they end at the score; then `total` is the last bar, from zero to the score. `zero` is where even
    odds lie. `rest` is what a score has beyond its parts, 0 but in a result that was altered.
    """

    bars: tuple[Bar, ...]
    total: Bar | None
    zero: float
    sums: bool
    rest: float
    sentence: str


def contributions(why: Why, method: str | None = None) -> Chart:
    """The chart of an image's score. `method` is the strategy's fusion method, None where it is not known."""
    parts = _in_order(why, method)
    sums = bool(parts) and (why.exact or method == "log_odds")
    steps, at = [], 0.0
    for part, value in parts:
        start = at if sums else 0.0
        at = start + value
        steps.append((part, value, start, at))
    ends = [0.0, *(end for *_, end in steps)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    low, span = low - _MARGIN * span, span * (1 + 2 * _MARGIN)

    def x(value: float) -> float:
        return round((value - low) / span * WIDTH, 1)

    def bar(part: Part, value: float, start: float, end: float) -> Bar:
        left, right = sorted((x(start), x(end)))
        return Bar(part, value, start, end, left, max(round(right - left, 1), 2.0), x(start), x(end))

    rest = why.ranked.score - at if sums else 0.0
    total = bar(Part(source="score", log_odds=at), at, 0.0, at) if sums else None
    return Chart(
        bars=tuple(bar(*step) for step in steps),
        total=total,
        zero=x(0.0),
        sums=sums,
        rest=rest if abs(rest) > _EXACT * max(1.0, abs(at)) else 0.0,
        sentence=_SUMS if sums else _METHODS.get(method or "", _ALONE if parts else _NOTHING),
    )


def _in_order(why: Why, method: str | None) -> Sequence[tuple[Part, float]]:
    """Parts with their log-odds, in the order of the result."""
    if method == "log_odds" and not why.exact:
        return _fused(why)
    by_source = {part.source: part for part in why.parts}
    sources = why.ranked.contributions if why.exact else by_source
    return [(by_source[source], value) for source in sources if (value := by_source[source].log_odds) is not None]


def _fused(why: Why) -> Sequence[tuple[Part, float]]:
    """The answer about the whole query, and the weighted prior, which is what the score has beyond it."""
    for part in why.parts:
        if part.log_odds is not None:
            prior = why.ranked.score - part.log_odds
            return [(Part(source="prior", log_odds=prior), prior), (part, part.log_odds)]
    return []

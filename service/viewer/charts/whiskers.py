"""Differences with their intervals, drawn within the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.paired import EVEN
from fieldscope.eval.measures.run_comparison import Effect
from fieldscope.service.viewer.formats import Side, side_of

_WIDTH = 180.0
_EDGE = 6.0


@dataclass(frozen=True)
class Whisker:
    """A difference (`mid`) with its interval, and where its table's zero lies."""

    low: float
    mid: float
    high: float
    zero: float
    side: Side


def whiskers(effects: Sequence[Effect]) -> list[Whisker]:
    """The differences of one table on one scale. A difference that may be chance is `even`."""
    tests = [effect.test for effect in effects]
    low = min([0.0, *(test.low for test in tests)])
    span = max(max([0.0, *(test.high for test in tests)]) - low, EVEN)

    def x(value: float) -> float:
        return _EDGE + (_WIDTH - 2 * _EDGE) * (value - low) / span

    return [
        Whisker(x(e.test.low), x(e.test.difference), x(e.test.high), x(0.0), side_of(change_of(e))) for e in effects
    ]


def change_of(effect: Effect) -> float:
    """The difference, or 0 where it may be chance."""
    return effect.test.difference if effect.significant else 0.0

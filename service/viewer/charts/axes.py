"""The axes of charts: round numbers, and where they are marked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fieldscope.eval.measures.paired import EVEN


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Some `about` round numbers at equal steps that hold everything from `low` to `high`; two at least."""
    span = high - low if high - low > EVEN else max(abs(high), 0.1)
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - EVEN))
    first, last = math.floor(low / step + EVEN), math.ceil(high / step - EVEN)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]

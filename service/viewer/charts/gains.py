"""What run B gains in each query, as bars: geometry in units of the view box; the templates draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.eval.measures.paired import EVEN
from fieldscope.eval.measures.run_comparison import Effect
from fieldscope.service.viewer.charts.axes import Tick, ticks
from fieldscope.service.viewer.formats import Side, shorten, side_of, signed

WIDTH = 940.0
_LEFT, _TOP, _TALL, _BOTTOM = 44.0, 30.0, 220.0, 30.0
_WIDEST = 76.0  # of a single bar
_LETTER = 6.4  # of a label, in the mean
_LABEL = 46  # letters of a label


@dataclass(frozen=True)
class Bar:
    """A query's gain. `title` says it in words."""

    query: str
    x: float
    y: float
    width: float
    height: float
    side: Side
    title: str


@dataclass(frozen=True)
class Label:
    """The words beside a bar at one of the ends."""

    x: float
    y: float
    anchor: Literal["start", "end"]
    side: Side
    text: str


@dataclass(frozen=True)
class Gains:
    """Every query's gain, best first, with the mean and its interval."""

    width: float
    height: float
    left: float
    zero: float
    mean: float
    low: float
    high: float
    bars: tuple[Bar, ...]
    up: tuple[Tick, ...]
    labels: tuple[Label, ...]


def gains_chart(gains: Mapping[str, float], effect: Effect, text: Callable[[str], str]) -> Gains:
    """What each query gains (at least one, best first). `text` says what a query asks for. Ties have a place on the
    axis, and no bar. The best and the worst query are labelled."""
    test = effect.test
    rungs = ticks(min(0.0, *gains.values(), test.low), max(0.0, *gains.values(), test.high))
    low, high = rungs[0], rungs[-1]

    def at(value: float) -> float:
        return _TOP + _TALL * (high - value) / (high - low)

    step = min((WIDTH - _LEFT) / len(gains), _WIDEST)
    gap = min(3.0, step / 5)
    bars = tuple(
        Bar(
            query=query,
            x=_LEFT + place * step + gap / 2,
            y=at(max(gain, 0.0)),
            width=step - gap,
            height=max(abs(at(gain) - at(0.0)), 1.0),
            side=side_of(gain),
            title=f"{shorten(text(query), _LABEL)}: {signed(gain)}",
        )
        for place, (query, gain) in enumerate(gains.items())
        if abs(gain) > EVEN
    )
    return Gains(
        width=WIDTH,
        height=_TOP + _TALL + _BOTTOM,
        left=_LEFT,
        zero=at(0.0),
        mean=at(test.difference),
        low=at(test.low),
        high=at(test.high),
        bars=bars,
        up=tuple(Tick(at(mark), f"{100 * mark:+g}".replace("-", "−") if mark else "0") for mark in rungs),
        labels=_labels(bars),
    )


def _labels(bars: Sequence[Bar]) -> tuple[Label, ...]:
    """The labels of the best gain, above its bar, and of the worst loss, below its bar."""
    labels = []
    if bars and bars[0].side == "better":
        best = bars[0]
        labels.append(Label(best.x, best.y - 8, "start", "better", best.title))
    if bars and bars[-1].side == "worse":
        worst = bars[-1]
        right = worst.x + worst.width
        fits = right - _LEFT >= _LETTER * len(worst.title)
        label_x = right if fits else worst.x
        labels.append(Label(label_x, worst.y + worst.height + 16, "end" if fits else "start", "worse", worst.title))
    return tuple(labels)

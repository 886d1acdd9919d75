"""The charts of a comparison: what each query gains, and rankings next to each other with lines between the same
images. Geometry only; the templates draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.eval.measures.paired import EVEN
from fieldscope.eval.measures.run_comparison import Effect
from fieldscope.service.viewer.report.charts import Side, Tick, side_of, ticks

WIDTH = 940.0
_LEFT, _TOP, _TALL, _BOTTOM = 44.0, 30.0, 220.0, 30.0
_WIDEST = 76.0  # of a single bar
_LETTER = 6.4  # of a label, in the mean
_LABEL = 46  # letters of a label

ROW = 58
"""The height of a place in a ranking, in pixels, as `compare.css` has it."""


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
            title=f"{_cut(text(query))}: {_points(gain)}",
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
    """The best gain is told above its bar, from its left on; the worst loss below its own, up to its right."""
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


@dataclass(frozen=True)
class Slope:
    """The line from an image's place on the left to that on the right, between x = 0 and 100. `image` is its number,
    `side` says whether it is further up on the right."""

    image: int
    path: str
    start: float
    end: float
    side: Side


def slopes(left: Sequence[int], right: Sequence[int]) -> list[Slope]:
    """Lines between two rankings of images, by number and best first. An image that only one of them has gets none.
    Lines of the right side's head come last, so that they are drawn above the others."""
    places = {image: place for place, image in enumerate(right)}
    found = [_slope(image, place, places[image]) for place, image in enumerate(left) if image in places]
    return sorted(found, key=lambda slope: -slope.end)


def _slope(image: int, place: int, other: int) -> Slope:
    start, end = ROW * (place + 0.5), ROW * (other + 0.5)
    return Slope(image, f"M0 {start:g}C45 {start:g} 55 {end:g} 100 {end:g}", start, end, side_of(place - other))


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}".replace("-", "−")


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1].rstrip()}…"

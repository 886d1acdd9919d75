"""The geometry of the report's figures, in pixels of their own view boxes; the page draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.eval.measures.paired import EVEN
from fieldscope.eval.measures.run_comparison import Effect, ScoredComparison, ScoredPair, cost_of, per_query
from fieldscope.service.viewer.report import wording

Side = Literal["better", "worse", "even"]
Anchor = Literal["start", "end", "middle"]

WIDTH = 960.0
_LETTER = 7.0  # of a label, in the mean
_LINE = 15.0


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One query's difference. `row` is its place in the list below the chart."""

    x: float
    y: float
    width: float
    height: float
    side: Side
    title: str
    row: int


@dataclass(frozen=True)
class Bars:
    """Every query's difference, best first, with the mean and its interval."""

    width: float
    height: float
    left: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    zero: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Dot:
    """A run by cost and quality, with its label."""

    x: float
    y: float
    name: str
    label_x: float
    label_y: float
    anchor: Anchor
    on_front: bool
    title: str


@dataclass(frozen=True)
class Scatter:
    """Runs by cost and quality. `steps` is the front's path; `free` separates what costs nothing from a logarithmic
    axis, None where there is none."""

    width: float
    height: float
    left: float
    bottom: float
    dots: tuple[Dot, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    steps: str
    free: float | None
    cost: str


@dataclass(frozen=True)
class Whisker:
    """A difference with its interval, within a cell of a table."""

    low: float
    mid: float
    high: float
    side: Side


def whiskers(effects: Sequence[Effect], width: float = 180.0) -> tuple[list[Whisker], float]:
    """Differences of one table on one scale, and where its zero lies. What is no finding is even."""
    low = min([0.0, *(effect.test.low for effect in effects)])
    high = max([0.0, *(effect.test.high for effect in effects)])
    span = max(high - low, EVEN)

    def at(value: float) -> float:
        return 6 + (width - 12) * (value - low) / span

    drawn = [
        Whisker(
            at(e.test.low), at(e.test.difference), at(e.test.high), side_of(e.test.difference if e.significant else 0)
        )
        for e in effects
    ]
    return drawn, at(0.0)


def difference_bars(found: ScoredComparison, pair: ScoredPair) -> Bars:
    """What B gains in the main metric, query by query."""
    left, right, top, height, bottom = 48.0, 8.0, 10.0, 240.0, 10.0
    gains = pair.differences[found.main]
    test = pair.effects[found.main].test
    marks = ticks(min(0.0, *gains.values(), test.low), max(0.0, *gains.values(), test.high))
    low, high = marks[0], marks[-1]

    def at(value: float) -> float:
        return top + height * (high - value) / (high - low)

    step = (WIDTH - left - right) / len(gains)
    gap = min(2.0, step / 5)
    listed = {query: row for row, query in enumerate([*pair.won(found.main), *pair.lost(found.main)])}
    bars = tuple(
        Bar(
            x=left + place * step + gap / 2,
            y=at(max(gain, 0.0)),
            width=step - gap,
            height=abs(at(gain) - at(0.0)),
            side=side_of(gain),
            title=f"{query}: {pair.a.text(query)} ({wording.points(gain)})",
            row=listed[query],
        )
        for place, (query, gain) in enumerate(gains.items())
        if query in listed
    )
    labels = tuple(Tick(at(mark), f"{100 * mark:+g}" if mark else "0") for mark in marks)
    return Bars(
        WIDTH, top + height + bottom, left, bars, labels, at(0.0), at(test.difference), at(test.low), at(test.high)
    )


def cost_quality(found: ScoredComparison) -> Scatter:
    """Runs by what a query costs and by the main metric."""
    cost = found.main_cost
    return scatter(
        [run.name for run in found.runs],
        [cost_of(run, cost) / len(run.requests) for run in found.runs],
        [run.mean(per_query(found.main)) for run in found.runs],
        [run.name in found.fronts[cost] for run in found.runs],
        quality=found.main,
        cost=found.currency or cost,
    )


def scatter(
    names: Sequence[str],
    costs: Sequence[float],
    qualities: Sequence[float],
    on_front: Sequence[bool],
    *,
    quality: str,
    cost: str,
) -> Scatter:
    """Runs by what a query costs each, and by a metric; `quality` and `cost` are what these are called. Costs that
    differ widely have a logarithmic axis."""
    left, right, top, height, bottom = 52.0, 130.0, 16.0, 300.0, 46.0
    across, marks, free = _cost_axis(costs, left, WIDTH - right)
    rungs = ticks(min(qualities), max(qualities))

    def up(value: float) -> float:
        return top + height * (rungs[-1] - value) / (rungs[-1] - rungs[0])

    places = [(across[spent], up(value)) for spent, value in zip(costs, qualities, strict=True)]
    labels = _labels(places, names)
    dots = tuple(
        Dot(
            x=place[0],
            y=place[1],
            name=name,
            label_x=label[0],
            label_y=label[1],
            anchor=label[2],
            on_front=best,
            title=f"{name}: {quality} {wording.percent(value)}, {_short(spent)} {cost} a query",
        )
        for name, place, label, best, spent, value in zip(
            names, places, labels, on_front, costs, qualities, strict=True
        )
    )
    corners = sorted((dot.x, dot.y) for dot in dots if dot.on_front)
    steps = "".join(f"M{x:.1f},{y:.1f}" if place == 0 else f"H{x:.1f}V{y:.1f}" for place, (x, y) in enumerate(corners))
    return Scatter(
        width=WIDTH,
        height=top + height + bottom,
        left=left,
        bottom=top + height,
        dots=dots,
        across=tuple(Tick(at, _short(value)) for value, at in marks),
        up=tuple(Tick(up(rung), f"{100 * rung:g}") for rung in rungs),
        steps=steps,
        free=free,
        cost=cost,
    )


def side_of(gain: float) -> Side:
    """Whether a gain is one."""
    if abs(gain) <= EVEN:
        return "even"
    return "better" if gain > 0 else "worse"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Some `about` round numbers at equal steps that hold everything from `low` to `high`; two at least."""
    span = high - low if high - low > EVEN else max(abs(high), 0.1)
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - EVEN))
    first, last = math.floor(low / step + EVEN), math.ceil(high / step - EVEN)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _cost_axis(
    costs: Sequence[float], start: float, end: float
) -> tuple[dict[float, float], list[tuple[float, float]], float | None]:
    """Where each cost lies, the marks with their places, and where a lane for what is free ends."""
    paid = [cost for cost in costs if cost > 0]
    if not paid or max(paid) < 20 * min(paid):
        marks = ticks(0.0, max(paid, default=1.0))
        inner = start + 14

        def linear(value: float) -> float:
            return inner + (end - inner) * value / marks[-1]

        return {cost: linear(cost) for cost in costs}, [(mark, linear(mark)) for mark in marks], None
    lane = start + 56 if len(paid) < len(costs) else start
    low, high = math.log10(min(paid)), math.log10(max(paid))

    def logarithmic(value: float) -> float:
        return lane + 24 + (end - lane - 24) * (math.log10(value) - low) / (high - low)

    tens = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    marks_at = [(ten, logarithmic(ten)) for ten in tens]
    middle = (start + lane) / 2
    if lane > start:
        marks_at.insert(0, (0.0, middle))
    return {c: logarithmic(c) if c > 0 else middle for c in costs}, marks_at, lane if lane > start else None


def _labels(places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[tuple[float, float, Anchor]]:
    """A place for each name beside its dot, clear of the other dots and names where there is one."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    found = []
    for own, ((x, y), name) in enumerate(zip(places, names, strict=True)):
        wide = _LETTER * len(name)
        tries: list[tuple[float, float, Anchor, float]] = [
            (x + 10, y + 4, "start", x + 10),
            (x - 10, y + 4, "end", x - 10 - wide),
            (x, y - 11, "middle", x - wide / 2),
            (x, y + 21, "middle", x - wide / 2),
            (x + 10, y + 19, "start", x + 10),
            (x + 10, y - 11, "start", x + 10),
        ]

        def clashes(candidate: tuple[float, float, str, float], own: int = own, wide: float = wide) -> int:
            _, base, _, begin = candidate
            box = (begin, base - _LINE + 3, begin + wide, base + 3)
            outside = box[0] < 0 or box[2] > WIDTH
            return sum(_overlap(box, other) for place, other in enumerate(taken) if place != own) + 10 * outside

        at_x, at_y, anchor, begin = min(tries, key=clashes)
        taken.append((begin, at_y - _LINE + 3, begin + wide, at_y + 3))
        found.append((at_x, at_y, anchor))
    return found


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short(value: float) -> str:
    """A cost in a few characters: 0, 0.004, 12, 3.4k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"

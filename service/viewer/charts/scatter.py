"""Runs by cost and quality as a scatter plot: geometry in units of its view box; the templates draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.service.viewer.charts.axes import Tick, ticks
from fieldscope.service.viewer.formats import compact, percent

Anchor = Literal["start", "end", "middle"]

WIDTH = 960.0
_LETTER = 7.0  # average width of a label's letter
_LINE = 15.0


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
            title=f"{name}: {quality} {percent(value)}, {compact(spent)} {cost} a query",
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
        across=tuple(Tick(at, compact(value)) for value, at in marks),
        up=tuple(Tick(up(rung), f"{100 * rung:g}") for rung in rungs),
        steps=steps,
        free=free,
        cost=cost,
    )


def _cost_axis(
    costs: Sequence[float], start: float, end: float
) -> tuple[dict[float, float], list[tuple[float, float]], float | None]:
    """The place of each cost, the ticks with their places, and the end of a lane for runs without cost."""
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
    """A place for each name beside its dot, clear of other dots and names if possible."""
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

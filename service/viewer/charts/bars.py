"""A run's charts: geometry in units of their view boxes; the templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.service.viewer.charts.axes import Tick, ticks
from fieldscope.service.viewer.formats import Side, percent, shorten, side_of
from fieldscope.service.viewer.runs.digest import QueryDigest

MOST = 200
"""The largest number of queries in a chart; of more, the most important ones are shown."""

WIDTH = 1080.0
_LEFT, _RIGHT, _TOP = 44.0, 10.0, 12.0
_BROADEST = 84.0  # room of one query, where there are few
_THICKEST = 44.0  # a bar
_NARROWEST = 320.0


@dataclass(frozen=True)
class Change:
    """A query's headline before and after."""

    query_id: str
    x: float
    before: float
    after: float
    side: Side
    title: str


@dataclass(frozen=True)
class Changes:
    """Queries from hurt most to helped most. `total` also counts those that are not drawn; `size` is a mark's radius;
    `labelled` says that ids fit below."""

    width: float
    height: float
    left: float
    bottom: float
    size: float
    marks: tuple[Change, ...]
    up: tuple[Tick, ...]
    total: int
    labelled: bool


@dataclass(frozen=True)
class Cost:
    """A query's calls, from the bottom of the chart up: those that were answered, and those that were not."""

    query_id: str
    x: float
    width: float
    y: float
    height: float
    unknown: float
    title: str


@dataclass(frozen=True)
class Costs:
    """Queries by calls, most first; `mean` is the height of their mean."""

    width: float
    height: float
    left: float
    bottom: float
    bars: tuple[Cost, ...]
    up: tuple[Tick, ...]
    mean: float
    total: int


def before_after(digests: Sequence[QueryDigest]) -> Changes | None:
    """The headline in the first stage's order and in the run's; None if no query could be scored."""
    gained = sorted(
        (
            (after - before, digest.query_id, before, after, digest)
            for digest in digests
            if (before := digest.before) is not None and (after := digest.after) is not None
        ),
        key=lambda each: each[:2],
    )
    if not gained:
        return None
    shown = gained if len(gained) <= MOST else [*gained[: MOST // 2], *gained[-(MOST // 2) :]]
    height, bottom = 280.0, _TOP + 280.0
    step = min(_BROADEST, (WIDTH - _LEFT - _RIGHT) / len(shown))
    labelled = step >= _THICKEST

    def at(value: float) -> float:
        return bottom - height * value

    marks = tuple(
        Change(
            query_id=query_id,
            x=_LEFT + (place + 0.5) * step,
            before=at(before),
            after=at(after),
            side=side_of(gain),
            title=f"{query_id}: {percent(before)} before, {percent(after)} after · {shorten(digest.text, 80)}",
        )
        for place, (gain, query_id, before, after, digest) in enumerate(shown)
    )
    return Changes(
        width=max(_NARROWEST, _LEFT + _RIGHT + step * len(shown)),
        height=bottom + (26 if labelled else 12),
        left=_LEFT,
        bottom=bottom,
        size=min(6.0, max(1.8, 0.4 * step)),
        marks=marks,
        up=tuple(Tick(at(value / 100), str(value)) for value in (0, 25, 50, 75, 100)),
        total=len(gained),
        labelled=labelled,
    )


def cost_bars(digests: Sequence[QueryDigest]) -> Costs | None:
    """Calls by query; None if there were none."""
    costly = sorted(digests, key=lambda digest: (-digest.calls, digest.query_id))
    if not costly or not costly[0].calls:
        return None
    shown = costly[:MOST]
    height, bottom = 150.0, _TOP + 150.0
    step = min(_BROADEST, (WIDTH - _LEFT - _RIGHT) / len(shown))
    gap = max(min(2.0, step / 5), step - _THICKEST)
    rungs = ticks(0.0, float(shown[0].calls), about=4)

    def tall(calls: float) -> float:
        return height * calls / rungs[-1]

    bars = tuple(
        Cost(
            query_id=digest.query_id,
            x=_LEFT + place * step + gap / 2,
            width=step - gap,
            y=bottom - tall(digest.calls),
            height=tall(digest.calls),
            unknown=tall(digest.unknown),
            title=f"{digest.query_id}: {digest.calls:,} calls, {digest.prompt_tokens + digest.completion_tokens:,} "
            f"tokens, {digest.unknown:,} unknown · {shorten(digest.text, 80)}",
        )
        for place, digest in enumerate(shown)
    )
    return Costs(
        width=max(_NARROWEST, _LEFT + _RIGHT + step * len(shown)),
        height=bottom + 12,
        left=_LEFT,
        bottom=bottom,
        bars=bars,
        up=tuple(Tick(bottom - tall(rung), f"{rung:,g}") for rung in rungs),
        mean=bottom - tall(sum(digest.calls for digest in digests) / len(digests)),
        total=len(costly),
    )

"""Every image's rank from stage to stage, as lines: geometry only; the template draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.trace_view import stage_costs
from fieldscope.agent.types import RerankResult

HEAD = 10
"""The number of best images emphasised."""

MOVERS = 5
"""The number of images emphasised as risen most, and as sunk most."""

WIDTH = 980.0
_TOP, _BOTTOM = 46.0, 22.0
_LEFT, _RIGHT = 96.0, 224.0  # room for the labels beside the first and the last column
_TALL = 640.0
_BEND = 12.0  # ranks at about which the scale turns from even steps to even ratios
_LABEL = 27.0  # a label's height, with its picture
_SMALL = 14.0  # a label's height without one
_TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)


@dataclass(frozen=True)
class Stage:
    """A stage's name and the rank of each image after it (1 is best)."""

    name: str
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Line:
    """An image's line. `path` is SVG; `kind` is `head`, `rose` or `sank` if it is emphasised, else empty.

    `start` and `end` are the heights of its ends, `from_label` and `to_label` those of its labels.
    """

    image_id: str
    path: str
    kind: str
    prior_rank: int
    rank: int
    start: float
    end: float
    from_label: float = 0.0
    to_label: float = 0.0

    @property
    def moved(self) -> int:
        """The number of ranks that it rose (negative: sank)."""
        return self.prior_rank - self.rank


@dataclass(frozen=True)
class Flow:
    """The chart, in units of its view box. Emphasised lines come last, on top."""

    width: float
    height: float
    columns: tuple[tuple[str, float], ...]
    ticks: tuple[tuple[int, float], ...]
    lines: tuple[Line, ...]


def stages(result: RerankResult) -> tuple[Stage, ...]:
    """The first stage's order, and the order after each later stage.

    If a result does not separate its stages, they are one step to the final order; if nothing was asked, there is only
    the first stage's order.
    """
    ranks: Mapping[str, int] = {ranked.image_id: ranked.prior_rank for ranked in result.ranking}
    found = [Stage("prior", ranks)]
    asked = [cost for cost in stage_costs(result) if cost.stage in ("verify", "compare")]
    told = [cost for cost in asked if cost.moved is not None]
    for cost in told:
        moved = cost.moved or {}
        ranks = {image_id: rank - moved.get(image_id, 0) for image_id, rank in ranks.items()}
        found.append(Stage(_NAMES[cost.stage], ranks))
    final = {ranked.image_id: ranked.rank for ranked in result.ranking}
    if ranks != final:
        found.append(Stage("final", final))
    return tuple(found)


_NAMES = {"verify": "after verification", "compare": "after comparison"}


def rank_flow(result: RerankResult) -> Flow | None:
    """The chart; None if there is only one order, or no image."""
    steps = stages(result)
    if len(steps) < 2 or not result.ranking:
        return None
    scale = _Scale(max(len(result.ranking), *(max(step.ranks.values()) for step in steps)))
    across = (WIDTH - _LEFT - _RIGHT) / (len(steps) - 1)
    columns = tuple((step.name, _LEFT + number * across) for number, step in enumerate(steps))
    kinds = emphasised(result)
    marked = [ranked for ranked in result.ranking if ranked.image_id in kinds]
    to_labels = spread([scale.height(ranked.rank) for ranked in marked], _LABEL, _TALL)
    by_prior = sorted(marked, key=lambda ranked: ranked.prior_rank)
    from_labels = spread([scale.height(ranked.prior_rank) for ranked in by_prior], _SMALL, _TALL)
    to = {ranked.image_id: at for ranked, at in zip(marked, to_labels, strict=True)}
    of = {ranked.image_id: at for ranked, at in zip(by_prior, from_labels, strict=True)}
    lines = [
        Line(
            image_id=ranked.image_id,
            path=_path(
                [(x, scale.height(step.ranks[ranked.image_id])) for (_, x), step in zip(columns, steps, strict=True)]
            ),
            kind=kinds.get(ranked.image_id, ""),
            prior_rank=ranked.prior_rank,
            rank=ranked.rank,
            start=scale.height(ranked.prior_rank),
            end=scale.height(ranked.rank),
            from_label=of.get(ranked.image_id, 0.0),
            to_label=to.get(ranked.image_id, 0.0),
        )
        for ranked in result.ranking
    ]
    return Flow(
        width=WIDTH,
        height=_TOP + _TALL + _BOTTOM,
        columns=columns,
        ticks=tuple((rank, scale.height(rank)) for rank in _TICKS if rank <= scale.last),
        lines=tuple(sorted(lines, key=lambda line: (bool(line.kind), -line.rank))),
    )


def emphasised(result: RerankResult) -> dict[str, str]:
    """Image id -> why it is emphasised: it is at the top, or rose or sank most."""
    by_move = sorted(result.ranking, key=lambda ranked: (ranked.prior_rank - ranked.rank, -ranked.rank))
    sank = {r.image_id: "sank" for r in by_move[:MOVERS] if r.rank > r.prior_rank}
    rose = {r.image_id: "rose" for r in by_move[-MOVERS:] if r.rank < r.prior_rank}
    return {r.image_id: "head" for r in result.ranking if r.rank <= HEAD} | sank | rose


def spread(heights: Sequence[float], gap: float, tall: float) -> list[float]:
    """Increasing heights, moved apart as little as possible until neighbours are `gap` apart, and above the chart's
    lower end unless there are too many."""
    apart: list[float] = []
    for height in heights:
        apart.append(max(height, apart[-1] + gap) if apart else height)
    lowest = _TOP + tall
    for at in range(len(apart) - 1, -1, -1):
        if apart[at] <= lowest:
            break
        apart[at] = lowest
        lowest -= gap
    return apart


class _Scale:
    """From ranks to heights. The top ranks get most of the space, because they matter most."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._whole = math.log1p((last - 1) / _BEND) or 1.0

    def height(self, rank: int) -> float:
        return round(_TOP + _TALL * math.log1p((rank - 1) / _BEND) / self._whole, 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *others = points
    parts = [f"M{x:g} {y:g}"]
    for to_x, to_y in others:
        middle = (x + to_x) / 2
        parts.append(f"C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    return "".join(parts)

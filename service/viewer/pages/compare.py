"""Runs over the same queries next to each other: what each gains, where, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.paired import EVEN
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.slopes import Gains, gains_chart
from fieldscope.service.viewer.effects import EVERY_TWO, Effects, Pair, effects
from fieldscope.service.viewer.metrics import MAIN, METRICS
from fieldscope.service.viewer.overview import totals
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.report.charts import Whisker, whiskers
from fieldscope.service.viewer.report.wording import kind_name, p_value
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.sides import Common, Side, common, sides

LISTED = 3
"""So many of the queries that a run hurt most, and of those that it helped most, stand at the top."""

DRAWN = 4
"""So many runs have a chart and lists against the first; further ones have them on the pages of two."""


@dataclass(frozen=True)
class Row:
    """A query: what each run made of it. Gains and outcomes are those of every other run against the first; all three
    are empty where it could not be scored."""

    query_id: str
    text: str
    group: str
    scores: tuple[float, ...]
    gains: tuple[float, ...]
    outcomes: tuple[str, ...]
    calls: tuple[int, ...]


def page(runs: Sequence[Run]) -> Page:
    """Two or more runs; the first is the one that the others are compared with."""
    found = sides(runs)
    shared = common(found)
    measured = effects(found, shared.scored) if shared.scored else None
    against = measured.against(found[0]) if measured else []
    texts = {query: found[0].run.digests[query].text for query in shared.queries}
    costs = [totals([side.run.digests[query] for query in shared.queries]) for side in found]
    kind, groups = _groups(found, shared.queries)
    return Page(
        address=addresses.compare_page([run.key for run in runs]),
        template="compare.html",
        title=_title(found),
        context={
            "sides": found,
            "shared": shared,
            "metrics": METRICS,
            "main": MAIN,
            "measured": measured,
            "against": against,
            "charts": {pair.b.letter: _chart(pair, texts) for pair in against[: DRAWN - 1]},
            "drawn": against[: DRAWN - 1],
            "whiskers": _whiskers(measured),
            "every_two": len(found) <= EVERY_TWO,
            "listed": LISTED,
            "texts": texts,
            "costs": costs,
            "most_tokens": max(1, *(cost.usage.tokens for cost in costs)),
            "kind": kind_name(kind),
            "groups": sorted(set(groups.values())),
            "rows": _rows(found, shared, groups),
            "asked": any(side.run.digests[query].calls for side in found for query in shared.queries),
            "p_value": p_value,
            "together": lambda pair: addresses.compare_page([pair.a.run.key, pair.b.run.key]),
            "led_by": lambda side: addresses.compare_page([side.run.key, *(r.key for r in runs if r is not side.run)]),
            # Pages of one folder: their short addresses keep a page with many links small.
            "query_link": lambda query: f"queries/{addresses.slug(query)}.html",
        },
        crumbs=[("Runs", addresses.INDEX)],
        styles=("compare.css",),
        scripts=("compare.js",),
    )


def _title(found: Sequence[Side]) -> str:
    if len(found) == 2:
        return f"{found[1].name} against {found[0].name}"
    return f"{', '.join(side.name for side in found[1:-1])} and {found[-1].name} against {found[0].name}"


def _chart(pair: Pair, texts: Mapping[str, str]) -> Gains:
    return gains_chart(pair.gains, pair.effects[MAIN], texts.__getitem__)


def _whiskers(measured: Effects | None) -> dict[str, tuple[list[Whisker], float]]:
    """For each metric the pairs' differences on one scale, and where its zero lies."""
    if measured is None:
        return {}
    return {metric: whiskers([pair.effects[metric] for pair in measured.pairs]) for metric in METRICS}


def _groups(found: Sequence[Side], queries: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The coarsest kind of group that tells queries apart, and each query's own; none where the runs name no such."""
    named = {query: next((own for side in found if (own := side.run.groups(query))), {}) for query in queries}
    kinds = {
        kind: {query: groups[kind] for query, groups in named.items() if kind in groups}
        for kind in dict.fromkeys(kind for groups in named.values() for kind in groups)
    }
    telling = {kind: own for kind, own in kinds.items() if len(set(own.values())) > 1}
    return min(telling.items(), key=lambda item: len(set(item[1].values())), default=("", {}))


def _rows(found: Sequence[Side], shared: Common, groups: Mapping[str, str]) -> list[Row]:
    scored = set(shared.scored)
    rows = []
    for query in shared.queries:
        digests = [side.run.digests[query] for side in found]
        scores = tuple(digest.scores[MAIN] for digest in digests) if query in scored else ()
        gains = tuple(score - scores[0] for score in scores[1:])
        rows.append(
            Row(
                query_id=query,
                text=digests[0].text,
                group=groups.get(query, ""),
                scores=scores,
                gains=gains,
                outcomes=tuple("won" if gain > EVEN else "lost" if gain < -EVEN else "tied" for gain in gains),
                calls=tuple(digest.calls for digest in digests),
            )
        )
    return rows

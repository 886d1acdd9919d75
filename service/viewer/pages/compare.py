"""Runs over the same queries compared: what each gains, on which queries, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.paired import EVEN
from fieldscope.eval.measures.run_comparison import Pair, ScoredComparison
from fieldscope.eval.reported import shared as shared_metrics
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.gains import gains_chart
from fieldscope.service.viewer.comparison import presentation
from fieldscope.service.viewer.comparison.effects import EVERY_TWO, compare_sides, scored_runs
from fieldscope.service.viewer.comparison.presentation import Table
from fieldscope.service.viewer.comparison.sides import Common, Side, common, sides
from fieldscope.service.viewer.formats import kind_name
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.overview import totals
from fieldscope.service.viewer.runs.run import Run

LISTED = 3
"""The number of queries listed as hurt most, and as helped most."""

DRAWN = 4
"""The number of runs, with the first one, that have a chart and lists; others have them on their pair's page."""


@dataclass(frozen=True)
class Row:
    """A query with the score of each run, and gain and outcome of each other run against the first. All three are empty
    if the query could not be scored."""

    query_id: str
    text: str
    group: str
    scores: tuple[float, ...]
    gains: tuple[float, ...]
    outcomes: tuple[str, ...]
    calls: tuple[int, ...]


def page(runs: Sequence[Run]) -> Page:
    """The page of two or more runs; the others are compared with the first."""
    found = sides(runs)
    shared = common(found)
    side_of_run = {side.name: side for side in found}
    scored = scored_runs(found, shared)
    main = shared_metrics(run.reported for run in runs).headline
    measured = compare_sides(scored) if shared.scored else None
    against = measured.against(scored[0]) if measured else []
    costs = [totals([side.run.digests[query] for query in shared.queries]) for side in found]
    kind, groups = _groups(found, shared.queries)
    return Page(
        address=addresses.compare_page([run.key for run in runs]),
        template="compare.html",
        title=_title(found),
        context={
            "sides": found,
            "side_of_run": side_of_run,
            "shared": shared,
            "main": main,
            "measured": measured,
            "against": against,
            "charts": {
                pair.b.name: gains_chart(pair.differences[main], pair.effects[main], pair.a.text)
                for pair in against[: DRAWN - 1]
            },
            "drawn": against[: DRAWN - 1],
            "presentation": presentation,
            "quality": presentation.quality_table(measured) if measured else None,
            "differences": _differences(measured) if measured else [],
            "cost": presentation.cost_table(scored, totals=costs),
            "every_two": len(found) <= EVERY_TWO,
            "listed": LISTED,
            "texts": {query: found[0].run.digests[query].text for query in shared.queries},
            "kind": kind_name(kind),
            "groups": sorted(set(groups.values())),
            "rows": _rows(found, shared, groups, main),
            "asked": any(cost.usage.calls for cost in costs),
            "address_of": lambda named: _address(named, side_of_run),
            "led_by": lambda side: addresses.compare_page([side.run.key, *(r.key for r in runs if r is not side.run)]),
            # Pages of one folder: their short addresses keep a page with many links small.
            "query_link": lambda query: f"queries/{addresses.slug(query)}.html",
        },
        crumbs=[("Runs", addresses.INDEX)],
        styles=("compare.css",),
        scripts=("compare.js",),
    )


def _differences(measured: ScoredComparison) -> list[Table]:
    return [presentation.pairs_table(measured, metric, detects=False) for metric in measured.metrics]


def _address(named: object, sides_by_name: Mapping[str, Side]) -> str | None:
    """The page about what a cell names: a run, or two of more runs."""
    match named:
        case ScoredRun(name=name):
            return sides_by_name[name].address
        case Pair(a=a, b=b) if len(sides_by_name) > 2:
            return addresses.compare_page([sides_by_name[a.name].run.key, sides_by_name[b.name].run.key])
    return None


def _title(found: Sequence[Side]) -> str:
    if len(found) == 2:
        return f"{found[1].name} against {found[0].name}"
    return f"{', '.join(side.name for side in found[1:-1])} and {found[-1].name} against {found[0].name}"


def _groups(found: Sequence[Side], queries: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The kind of group with the fewest groups, at least two, and the group of each query; empty if there is none."""
    named = {query: next((own for side in found if (own := side.run.groups(query))), {}) for query in queries}
    kinds = {
        kind: {query: groups[kind] for query, groups in named.items() if kind in groups}
        for kind in dict.fromkeys(kind for groups in named.values() for kind in groups)
    }
    telling = {kind: own for kind, own in kinds.items() if len(set(own.values())) > 1}
    return min(telling.items(), key=lambda item: len(set(item[1].values())), default=("", {}))


def _rows(found: Sequence[Side], shared: Common, groups: Mapping[str, str], main: str) -> list[Row]:
    scored = set(shared.scored)
    rows = []
    for query in shared.queries:
        digests = [side.run.digests[query] for side in found]
        scores = tuple(digest.scores[main] for digest in digests) if query in scored else ()
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

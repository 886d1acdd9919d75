"""The first page: all runs, by benchmark and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.run_comparison import front
from fieldscope.eval.reported import Reported, mean_name, shared
from fieldscope.eval.runs.read import names_of
from fieldscope.eval.runs.searches import Searches
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.scatter import Scatter, scatter
from fieldscope.service.viewer.comparison.comparable import comparable
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.overview import Standing, Totals, expected, standings, totals
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList

_WORTH_A_CHART = 3  # runs
_SEARCHES = 20  # of the newest
_SHOWN_TOGETHER = 24  # runs whose names still fit into a chart


@dataclass(frozen=True)
class Row:
    """A run with its figures. `of` is the number of queries of an unfinished run, if its folder says."""

    run: Run
    standings: Mapping[str, Standing]
    totals: Totals
    of: int | None


@dataclass(frozen=True)
class Task:
    """The runs of one benchmark and split, in these `metrics`, the headline first. `together` has the keys of all
    comparable runs, `available` those of every comparison that an exported copy has. `chart` has `charted` runs over
    the same `queries` queries."""

    benchmark: str
    split: str
    metrics: Sequence[str]
    rows: Sequence[Row]
    together: Sequence[str]
    available: Sequence[Sequence[str]]
    chart: Scatter | None
    charted: int
    queries: int


def page(run_list: RunList, searches: Searches | None = None) -> Page:
    """The page of all runs below the folder, with the newest of the service's kept `searches`; runs that can't be shown
    say why."""
    runs = run_list.runs()
    kept = searches.all() if searches is not None else []
    tasks: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.manifest is not None:
            benchmark = run.configuration.benchmark
            tasks.setdefault((benchmark.name, benchmark.split), []).append(run)
    return Page(
        address=addresses.INDEX,
        template="runs.html",
        title="Runs",
        context={
            "folder": run_list.root.resolve().name,
            "found": len(runs),
            "serves": searches is not None,
            "searches": [(folder.id, folder.record, folder.finished) for folder in kept[:_SEARCHES]],
            "more_searches": max(len(kept) - _SEARCHES, 0),
            "tasks": [_task(name, split, several) for (name, split), several in sorted(tasks.items())],
            "unreadable": [run for run in runs if run.manifest is None],
        },
        scripts=["runs.js"],
        styles=["runs.css"],
    )


def _task(benchmark: str, split: str, runs: Sequence[Run]) -> Task:
    reported = shared(run.reported for run in runs)
    rows = [_row(run, reported) for run in runs]
    sets = [[run.key for run in several] for several in comparable(runs)]
    charted = _same_queries(rows)
    return Task(
        benchmark=benchmark,
        split=split,
        metrics=[mean_name(value) for value in reported.values],
        rows=rows,
        together=max(sets, key=len, default=[]),
        available=sets,
        chart=_chart(charted, reported.mean),
        charted=len(charted),
        queries=len(charted[0].run.digests) if charted else 0,
    )


def _row(run: Run, reported: Reported) -> Row:
    digests = list(run.digests.values())
    return Row(run, standings(digests, reported.values), totals(digests), None if run.finished else expected(run))


def _same_queries(rows: Sequence[Row]) -> list[Row]:
    """The largest set of scored runs over the same queries."""
    alike: dict[frozenset[str], list[Row]] = {}
    for row in rows:
        if row.standings:
            alike.setdefault(frozenset(row.run.digests), []).append(row)
    return max(alike.values(), key=len, default=[])


def _chart(rows: Sequence[Row], metric: str) -> Scatter | None:
    if not _WORTH_A_CHART <= len(rows) <= _SHOWN_TOGETHER:
        return None
    costs = [row.totals.usage.calls / row.totals.queries for row in rows]
    qualities = [row.standings[metric].now.value for row in rows]
    names = names_of([row.run.folder for row in rows])
    return scatter(names, costs, qualities, front(costs, qualities), quality=metric, cost="calls")

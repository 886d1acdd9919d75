"""Runs compared over the same queries: means, differences, tests, costs. Pure.

`RunComparison` is the one record that the terminal, Markdown, HTML, JSON and the viewer show. `compare_values` makes it
from anything that has values per query, `compare_runs` from finished runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.eval.measures.paired import (
    EVEN,
    SIGNIFICANT,
    Column,
    Mean,
    Paired,
    detectable,
    holm,
    means,
    needed,
    paired_tests,
)
from fieldscope.eval.measures.scoring import NEAR_MISSES
from fieldscope.eval.reported import shared, value_name
from fieldscope.eval.runs.scored import ScoredRun, require_same_task

_COSTS = ("calls", "tokens", "seconds")

R = TypeVar("R")
"""What stands for a run."""

Report = Callable[[int, int], None]
"""Hears of progress: pairs done, and all."""

Couples = Sequence[tuple[int, int]]
"""Places of A and B among the runs."""

Groups = Mapping[str, Mapping[str, Sequence[str]]]
"""Kind of group -> group -> its queries."""


@dataclass(frozen=True)
class Effect:
    """What B changes against A in one metric over some queries.

    `p_holm` is the p value adjusted for its family: all pairs in that metric, or all groups of one kind within a pair.
    `spread` is the standard deviation of the queries' differences.
    """

    test: Paired
    p_holm: float
    spread: float = 0.0

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, the other tests of its family considered."""
        return self.p_holm < SIGNIFICANT

    @cached_property
    def needed(self) -> int | None:
        """With how many queries a test finds a difference of this size with a chance of 80 %; None where no number is
        enough."""
        return needed(self.test.difference, self.spread)

    @cached_property
    def detectable(self) -> float | None:
        """The smallest true difference that so many queries would have shown with a chance of 80 %; None where nothing
        can be said."""
        return detectable(self.spread, self.test.queries)


@dataclass(frozen=True)
class Pair(Generic[R]):
    """Run B against run A: effects by metric, and by kind of group, group and metric.

    `differences` is what B gains in each query, by metric, best first.
    """

    a: R
    b: R
    effects: Mapping[str, Effect]
    groups: Mapping[str, Mapping[str, Mapping[str, Effect]]]
    differences: Mapping[str, Mapping[str, float]]

    def won(self, metric: str) -> list[str]:
        """The queries in which B is better, the largest difference first."""
        return [query for query, gain in self.differences[metric].items() if gain > EVEN]

    def lost(self, metric: str) -> list[str]:
        """The queries in which A is better, the largest difference first."""
        return [query for query, gain in reversed([*self.differences[metric].items()]) if gain < -EVEN]

    def tied(self, metric: str) -> list[str]:
        """The queries that make no difference."""
        return sorted(query for query, gain in self.differences[metric].items() if abs(gain) <= EVEN)


@dataclass(frozen=True)
class RunComparison(Generic[R]):
    """Runs over the same queries and judgments. The first metric is the main one.

    `values` has, by query and metric, a value for each run, and `means` their means, by metric. `currency` is that of
    the runs' money, None where no prices are known. `fronts` has for each kind of cost the names of the runs than which
    no other is as good in the main metric for less. `notes` are what a reader of the numbers must know, a line each.
    """

    runs: tuple[R, ...]
    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    means: Mapping[str, tuple[Mean, ...]]
    pairs: tuple[Pair[R], ...]
    currency: str | None = None
    fronts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """The metric in which single queries are listed."""
        return self.metrics[0]

    @property
    def queries(self) -> int:
        """How many queries could be scored."""
        return len(self.values)

    @property
    def main_cost(self) -> str:
        """Money where prices are known, else tokens."""
        return "money" if self.currency else "tokens"

    def against(self, first: R) -> list[Pair[R]]:
        """The pairs in which `first` is A."""
        return [pair for pair in self.pairs if pair.a is first]


ScoredPair: TypeAlias = Pair[ScoredRun]
ScoredComparison: TypeAlias = RunComparison[ScoredRun]


def cost_of(run: ScoredRun, kind: str) -> float:
    """What a run spent in all: calls, tokens, seconds or money."""
    return (run.money or 0.0) if kind == "money" else float(getattr(run.spent, kind))


def front(costs: Sequence[float], qualities: Sequence[float]) -> list[bool]:
    """Along the runs, whether no other is at least as good at no greater cost, and better in one of the two."""
    points = list(zip(costs, qualities, strict=True))
    return [
        not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points) for cost, quality in points
    ]


def compare_runs(
    runs: Sequence[ScoredRun],
    metrics: Sequence[str] = (),
    currency: str | None = None,
    report: Report = lambda done, total: None,
) -> ScoredComparison:
    """Compare every two of at least two finished runs, later ones against earlier ones, in these metrics or, where
    there are none, in those that the benchmark's results are reported in, and in the share of near misses where it is
    known. Where no query has anything to find, they are compared in whether they say so.

    Raises `ConfigError` where runs differ in queries or judgments, saying which, or one has no such metric.
    """
    require_same_task(runs)
    runs = [run.comparable() for run in runs]
    metrics = metrics or (*shared(run.reported for run in runs).compared, *_known_to_all(runs, (NEAR_MISSES,)))
    for run, metric in product(runs, metrics):
        known = set.intersection(*(set(values) for values in run.values.values()))
        if value_name(metric) not in known:
            raise ConfigError(f"{run.folder}: {unknown_name('metric', metric, known)}")
    comparison = compare_values(
        runs,
        lambda run, query, metric: run.values[query][value_name(metric)],
        queries=[*runs[0].values],
        metrics=metrics,
        couples=[*combinations(range(len(runs)), 2)],
        groups=_groups(runs),
        report=report,
    )
    return replace(comparison, currency=currency, fronts=_fronts(comparison, currency), notes=_notes(runs))


def compare_values(
    runs: Sequence[R],
    value: Callable[[R, str, str], float],
    *,
    queries: Sequence[str],
    metrics: Sequence[str],
    couples: Couples,
    groups: Groups | None = None,
    report: Report = lambda done, total: None,
) -> RunComparison[R]:
    """Compare couples of runs in each metric, over at least one query; `value` is a run's of a query and metric.

    P values are adjusted for all couples in a metric, and within `groups` for all groups of a kind of one couple.
    """
    queries = sorted(queries)
    columns = {metric: [tuple(value(run, query, metric) for query in queries) for run in runs] for metric in metrics}
    flat = iter(means([column for metric in metrics for column in columns[metric]]))
    overall = _effects({metric: [(columns[metric][a], columns[metric][b]) for a, b in couples] for metric in metrics})
    rows = {query: row for row, query in enumerate(queries)}
    pairs = []
    for place, (a, b) in enumerate(couples):
        couple = {metric: (columns[metric][a], columns[metric][b]) for metric in metrics}
        by_kind = {
            kind: _by_group(couple, {group: [rows[query] for query in named] for group, named in of_kind.items()})
            for kind, of_kind in (groups or {}).items()
        }
        effects = {metric: overall[metric][place] for metric in metrics}
        differences = {metric: _differences(queries, *couple[metric]) for metric in metrics}
        pairs.append(Pair(runs[a], runs[b], effects, by_kind, differences))
        report(place + 1, len(couples))
    return RunComparison(
        runs=tuple(runs),
        metrics=tuple(metrics),
        values={
            query: {metric: tuple(column[row] for column in columns[metric]) for metric in metrics}
            for query, row in rows.items()
        },
        means={metric: tuple(next(flat) for _ in runs) for metric in metrics},
        pairs=tuple(pairs),
    )


def _effects(families: Mapping[str, Sequence[tuple[Column, Column]]]) -> dict[str, list[Effect]]:
    """The effects of families of tests over the same queries: in a family, B against A for each case."""
    tests = iter(paired_tests([case for cases in families.values() for case in cases]))
    return {name: _adjusted([next(tests) for _ in cases], cases) for name, cases in families.items()}


def _by_group(
    couple: Mapping[str, tuple[Column, Column]], groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Effect]]:
    """Group -> metric -> effect, for the groups of one kind and the rows of their queries."""
    cases = {
        group: [(tuple(a[row] for row in rows), tuple(b[row] for row in rows)) for a, b in couple.values()]
        for group, rows in groups.items()
    }
    tests = {group: paired_tests(own) for group, own in cases.items()}
    columns = {
        metric: _adjusted([tests[group][place] for group in groups], [cases[group][place] for group in groups])
        for place, metric in enumerate(couple)
    }
    return {group: {metric: columns[metric][row] for metric in couple} for row, group in enumerate(groups)}


def _adjusted(tests: Sequence[Paired], cases: Sequence[tuple[Column, Column]]) -> list[Effect]:
    """The effects of one family of tests."""
    return [
        Effect(test, p, _spread(*case))
        for test, p, case in zip(tests, holm([test.p for test in tests]), cases, strict=True)
    ]


def _groups(runs: Sequence[ScoredRun]) -> Groups:
    """The groups of scored queries, as the first run says that names groups; without the kinds that tell no two queries
    apart."""
    named = next((run.groups for run in runs if run.groups), {})
    kinds: dict[str, dict[str, list[str]]] = {}
    for query in runs[0].values:
        for kind, group in named.get(query, {}).items():
            if group:
                kinds.setdefault(kind, {}).setdefault(group, []).append(query)
    return {kind: dict(sorted(groups.items())) for kind, groups in kinds.items() if len(groups) > 1}


def _known_to_all(runs: Sequence[ScoredRun], metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that every run has for every query: a benchmark may not know them, or a run be older."""
    return [name for name in metrics if all(name in values for run in runs for values in run.values.values())]


def _fronts(comparison: ScoredComparison, currency: str | None) -> dict[str, list[str]]:
    qualities = [mean.value for mean in comparison.means[comparison.main]]
    fronts = {}
    for kind in (*_COSTS, "money") if currency else _COSTS:
        on_front = front([cost_of(run, kind) for run in comparison.runs], qualities)
        fronts[kind] = [run.name for run, best in zip(comparison.runs, on_front, strict=True) if best]
    return fronts


def _notes(runs: Sequence[ScoredRun]) -> tuple[str, ...]:
    first, lines = runs[0], []
    if 0 < len(official := [run.name for run in runs if run.official]) < len(runs):
        lines.append(
            f"in the figures of {' and '.join(official)} equal numbers are ties, as in INQUIRE's scripts; the other "
            "runs have strict orders"
        )
    for run in runs:
        if run.unknown:
            lines.append(f"{run.name}: {run.unknown:,} of {run.asked:,} calls failed")
        if run.ended:
            lines.append(f"{run.name}: a budget ended the work on {run.ended:,} of {len(run.requests):,} queries")
        if run.task != first.task:
            lines.append(f"{run.name} and {first.name} began from other candidates or priors, or with other groups")
    if unscored := len(first.requests) - len(first.values):
        lines.append(f"{unscored} of {len(first.requests)} queries have nothing relevant to find and are left out")
    if not any(run.groups for run in runs):
        lines.append(
            "no effects by group: the benchmark has no groups, or the runs were made by an earlier version and do not "
            "name them (rerun their `fieldscope eval` command, which adds them without asking the model)"
        )
    return tuple(lines)


def _differences(queries: Sequence[str], a: Column, b: Column) -> dict[str, float]:
    """What B gains in each query, best first; equal ones by query id."""
    gains = {query: after - before for query, before, after in zip(queries, a, b, strict=True)}
    return dict(sorted(gains.items(), key=lambda item: (-item[1], item[0])))


def _spread(a: Column, b: Column) -> float:
    return float(np.std(np.subtract(b, a), ddof=1)) if len(a) > 1 else 0.0

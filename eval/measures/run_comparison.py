"""Finished runs against each other: what every one of them changes, where, and at what cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.eval.measures.paired import EVEN, SIGNIFICANT, Paired, compare, detectable, holm
from fieldscope.eval.runs.scored import ScoredRun, require_same_task

METRICS = ("AP@50", "nDCG@50", "MRR")
"""What runs are compared in, unless others are asked for."""

_PER_QUERY = {"MRR": "RR"}  # a mean's name -> that of the single query's value
_COSTS = ("calls", "tokens", "seconds")


@dataclass(frozen=True)
class Effect:
    """What B changes against A in one metric over some queries.

    `p_holm` is the p value adjusted for its family: all pairs in that metric, or all groups of one kind within a pair.
    `detectable` is the smallest true difference that so many queries would have shown with a chance of 80 %, None
    where nothing can be said.
    """

    test: Paired
    p_holm: float
    detectable: float | None

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, the other tests of its family considered."""
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class Pair:
    """Run B against run A: effects by metric, and by kind of group, group and metric.

    `differences` is what B gains in each query, by metric, best first.
    """

    a: ScoredRun
    b: ScoredRun
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
class Contrast:
    """Runs over the same queries and judgments, every two of them compared. The first metric is the main one.

    `currency` is that of the runs' money, None where no prices are known.
    """

    runs: tuple[ScoredRun, ...]
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...]
    currency: str | None

    @property
    def main(self) -> str:
        """The metric in which single queries are listed."""
        return self.metrics[0]

    @property
    def queries(self) -> int:
        """How many queries could be scored."""
        return len(self.runs[0].values)

    @property
    def main_cost(self) -> str:
        """Money where prices are known, else tokens."""
        return "money" if self.currency else "tokens"

    @property
    def fronts(self) -> dict[str, list[str]]:
        """For each kind of cost the names of the runs than which no other is as good in the main metric for less."""
        kinds = (*_COSTS, "money") if self.currency else _COSTS
        qualities = [run.mean(per_query(self.main)) for run in self.runs]
        return {
            kind: [
                run.name
                for run, best in zip(
                    self.runs, front([cost_of(run, kind) for run in self.runs], qualities), strict=True
                )
                if best
            ]
            for kind in kinds
        }

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know, a line each."""
        first, lines = self.runs[0], []
        for run in self.runs:
            if run.unknown:
                lines.append(f"{run.name}: {run.unknown:,} of {run.asked:,} calls gave no answer")
            if run.ended:
                lines.append(f"{run.name}: a budget ended the work on {run.ended:,} of {len(run.requests):,} queries")
            if run.task != first.task:
                lines.append(f"{run.name} and {first.name} began from other candidates or priors, or with other groups")
        if unscored := len(first.requests) - self.queries:
            lines.append(f"{unscored} of {len(first.requests)} queries have nothing relevant to find and are left out")
        if not any(run.groups for run in self.runs):
            lines.append(
                "no effects by group: the benchmark has no groups, or the runs do not name them yet (their `fieldscope "
                "eval` command, given again, adds them and asks nothing)"
            )
        return lines


def per_query(metric: str) -> str:
    """The name of a query's value in `metrics.json`: the mean of `RR` is called MRR."""
    return _PER_QUERY.get(metric, metric)


def cost_of(run: ScoredRun, kind: str) -> float:
    """What a run spent in all: calls, tokens, seconds or money."""
    return (run.money or 0.0) if kind == "money" else float(getattr(run.spent, kind))


def front(costs: Sequence[float], qualities: Sequence[float]) -> list[bool]:
    """Along the runs, whether no other is at least as good at no greater cost, and better in one of the two."""
    points = list(zip(costs, qualities, strict=True))
    return [
        not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points) for cost, quality in points
    ]


def contrast(
    runs: Sequence[ScoredRun],
    metrics: Sequence[str] = METRICS,
    currency: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Contrast:
    """Compare every two of at least two runs, later ones against earlier ones.

    `report` hears of progress: pairs done, and all. Raises `ConfigError` where runs differ in queries or judgments,
    saying which, or one has no such metric.
    """
    require_same_task(runs)
    for run, metric in product(runs, metrics):
        known = set.intersection(*(set(values) for values in run.values.values()))
        if per_query(metric) not in known:
            raise ConfigError(f"{run.folder}: {unknown_name('metric', metric, known)}")
    couples = list(combinations(runs, 2))
    everything = list(runs[0].values)
    overall = {metric: _family([(a, b, everything) for a, b in couples], metric) for metric in metrics}
    grouped = _grouped(runs)
    pairs = []
    for place, (a, b) in enumerate(couples):
        pairs.append(
            Pair(
                a,
                b,
                {metric: overall[metric][place] for metric in metrics},
                {kind: _by_group(a, b, groups, metrics) for kind, groups in grouped.items()},
                {metric: _gains(a, b, metric) for metric in metrics},
            )
        )
        report(place + 1, len(couples))
    return Contrast(tuple(runs), tuple(metrics), tuple(pairs), currency)


def _family(cases: Sequence[tuple[ScoredRun, ScoredRun, Sequence[str]]], metric: str) -> list[Effect]:
    """The effects of tests that answer one question together: B against A, over these queries."""
    tests = [compare(_values(a, metric, queries), _values(b, metric, queries)) for a, b, queries in cases]
    spreads = [_spread(list(_gains(a, b, metric, queries).values())) for a, b, queries in cases]
    return [
        Effect(test, p, detectable(spread, test.queries))
        for test, p, spread in zip(tests, holm([test.p for test in tests]), spreads, strict=True)
    ]


def _by_group(
    a: ScoredRun, b: ScoredRun, groups: Mapping[str, Sequence[str]], metrics: Sequence[str]
) -> dict[str, dict[str, Effect]]:
    """Group -> metric -> effect, for the groups of one kind."""
    columns = {metric: _family([(a, b, queries) for queries in groups.values()], metric) for metric in metrics}
    return {group: {metric: columns[metric][row] for metric in metrics} for row, group in enumerate(groups)}


def _grouped(runs: Sequence[ScoredRun]) -> dict[str, dict[str, list[str]]]:
    """Kind of group -> group -> its scored queries, as the first run says that names groups; without the kinds that
    tell no two queries apart."""
    named = next((run.groups for run in runs if run.groups), {})
    found: dict[str, dict[str, list[str]]] = {}
    for query in runs[0].values:
        for kind, group in named.get(query, {}).items():
            if group:
                found.setdefault(kind, {}).setdefault(group, []).append(query)
    return {kind: dict(sorted(groups.items())) for kind, groups in found.items() if len(groups) > 1}


def _values(run: ScoredRun, metric: str, queries: Sequence[str]) -> dict[str, float]:
    return {query: run.values[query][per_query(metric)] for query in queries}


def _gains(a: ScoredRun, b: ScoredRun, metric: str, queries: Sequence[str] | None = None) -> dict[str, float]:
    """What B gains in each query, best first; equal ones by query id. All queries, unless some are given."""
    name = per_query(metric)
    gains = {query: b.values[query][name] - a.values[query][name] for query in (queries or a.values)}
    return dict(sorted(gains.items(), key=lambda item: (-item[1], item[0])))


def _spread(differences: Sequence[float]) -> float:
    return float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0

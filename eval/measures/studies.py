"""What two studies say, from their runs' metrics per query: what a smaller budget costs, and what comparison pays.

Pure: the runs are made by the command line. Every run is a mapping of query id to metric over the same queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from fieldscope.eval.measures.paired import Paired, compare
from fieldscope.eval.reported import GENERAL

PerQuery = Mapping[str, float]


@dataclass(frozen=True)
class BudgetRun:
    """One strategy under one budget: `share` of the calls of the free run, which is `max_calls` a query, and `calls`,
    what it used on average."""

    share: float
    max_calls: int
    calls: float
    values: PerQuery


@dataclass(frozen=True)
class BudgetPoint:
    """A budget's mean metric, and how much of the free run's gain over the prior it keeps (None without a gain)."""

    share: float
    max_calls: int
    calls: float
    value: float
    kept: float | None


@dataclass(frozen=True)
class BudgetStudy:
    """Points by rising share, and for every two of them what the larger budget changes, in one `metric`."""

    prior: float
    free: float
    points: tuple[BudgetPoint, ...]
    steps: Mapping[tuple[float, float], Paired]
    metric: str = GENERAL.headline

    @property
    def worse(self) -> tuple[tuple[float, float], ...]:
        """Pairs of a smaller and a larger budget of which the larger is significantly worse."""
        return tuple(pair for pair, step in self.steps.items() if step.significant and step.difference < 0)


def budget_study(
    prior: PerQuery, free: PerQuery, runs: Mapping[float, BudgetRun], metric: str = GENERAL.headline
) -> BudgetStudy:
    """Compare runs under budgets, by share, with the prior, with the free run, and with each other. All values are of
    `metric`."""
    ordered = [runs[share] for share in sorted(runs)]
    points = tuple(
        BudgetPoint(run.share, run.max_calls, run.calls, _mean(run.values), gain_kept(prior, free, run.values))
        for run in ordered
    )
    steps = {
        (smaller.share, larger.share): compare(smaller.values, larger.values)
        for smaller, larger in combinations(ordered, 2)
    }
    return BudgetStudy(_mean(prior), _mean(free), points, steps, metric)


@dataclass(frozen=True)
class ComparisonStudy:
    """What comparisons within the head change, from one start: all pairs in both orders, and those that the scheduler
    chooses. `recovered` is the scheduler's share of the gain of all pairs, None where there is none."""

    start: str
    before: float
    all_pairs: Paired
    scheduled: Paired
    calls_all: float
    calls_scheduled: float
    recovered: float | None

    @property
    def harms(self) -> bool:
        """Whether either makes the ranking significantly worse."""
        return any(found.significant and found.difference < 0 for found in (self.all_pairs, self.scheduled))


def comparison_study(
    start: str,
    before: PerQuery,
    all_pairs: PerQuery,
    scheduled: PerQuery,
    *,
    calls_all: float,
    calls_scheduled: float,
) -> ComparisonStudy:
    """Compare a ranking before any comparison with the two after it; `calls` are comparisons per query, on average."""
    return ComparisonStudy(
        start=start,
        before=_mean(before),
        all_pairs=compare(before, all_pairs),
        scheduled=compare(before, scheduled),
        calls_all=calls_all,
        calls_scheduled=calls_scheduled,
        recovered=gain_kept(before, all_pairs, scheduled),
    )


def gain_kept(base: PerQuery, full: PerQuery, part: PerQuery) -> float | None:
    """The share of the mean gain of `full` over `base` that `part` has; None where `full` gains nothing."""
    gain = _mean(full) - _mean(base)
    return (_mean(part) - _mean(base)) / gain if gain > 0 else None


def _mean(values: PerQuery) -> float:
    return sum(values.values()) / len(values)

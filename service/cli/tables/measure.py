"""Studies of runs in a terminal: significance, budgets, comparisons and harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.paired import Paired
    from fieldscope.eval.measures.regressions import Change, Harm
    from fieldscope.eval.measures.studies import BudgetStudy, ComparisonStudy


def significance_table(metric: str, tests: Sequence[tuple[Path, Path, Paired]]) -> Table:
    """Every two runs: their means, the difference with its interval and p, and the queries that each won."""
    columns = ("A", "B", "of A", "of B", "difference", "95 % interval", "p", "won", "lost")
    table = new_table(*columns, texts=2, title=f"{metric}, percent; B against A")
    for a, b, test in tests:
        interval = f"{_points(test.low)} to {_points(test.high)}"
        values = (_percent(test.mean_a), _percent(test.mean_b), _points(test.difference), interval, _p(test))
        table.add_row(plain(str(a)), plain(str(b)), *values, str(test.wins), str(test.losses))
    return table


def budget_tables(study: BudgetStudy) -> list[Table | str]:
    """A strategy's quality under each budget, what a larger budget changes, and whether one makes it worse."""
    columns = ("budget", "calls allowed", "calls used", f"m{study.metric}", "gain kept")
    table = new_table(*columns, title=f"m{study.metric} by calls per query, percent")
    table.add_row("prior", "0", "0.0", _percent(study.prior), "")
    for point in study.points:
        kept = "-" if point.kept is None else f"{point.kept:.0%}"
        table.add_row(f"{point.share:.0%}", str(point.max_calls), f"{point.calls:.1f}", _percent(point.value), kept)
    table.add_row("no budget", "", "", _percent(study.free), "100%")
    steps = new_table("from", "to", "difference", "p", texts=0, title="what a larger budget changes")
    for (smaller, larger), step in study.steps.items():
        steps.add_row(f"{smaller:.0%}", f"{larger:.0%}", _points(step.difference), _p(step))
    worse = "; ".join(f"{larger:.0%} is significantly worse than {smaller:.0%}" for smaller, larger in study.worse)
    return [table, steps, worse or "no larger budget is significantly worse than a smaller one"]


def comparison_tables(studies: Sequence[ComparisonStudy]) -> list[Table | str]:
    """Quality before and after comparisons, from each start, and where they do harm."""
    columns = ("started from", "after", "comparisons", "nDCG@10", "difference", "p", "gain recovered")
    table = new_table(*columns, texts=2, title="nDCG@10 by comparisons per query, percent")
    for study in studies:
        recovered = "-" if study.recovered is None else f"{study.recovered:.0%}"
        table.add_row(study.start, "none", "0", _percent(study.before), "", "", "")
        table.add_row("", "scheduled", f"{study.calls_scheduled:.0f}", *_after(study.scheduled), recovered)
        table.add_row("", "all pairs", f"{study.calls_all:.0f}", *_after(study.all_pairs), "")
    harmed = [f"comparisons do harm if the ranking starts from {study.start}" for study in studies if study.harms]
    return [table, *harmed]


def harm_table(name: str, harms: Mapping[str, Harm]) -> Table:
    """How a strategy changes each supercategory of each benchmark, and the share of queries that lose."""
    metrics = " or ".join(dict.fromkeys(harm.metric for harm in harms.values()))
    title = f"{name} against the first stage: change of {metrics} in points, queries that lose more than 5 points"
    table = new_table("benchmark", "supercategory", "queries", "change", "losing", texts=2, title=title)
    for benchmark, harm in harms.items():
        for group, change in harm.groups.items():
            table.add_row(plain(benchmark), plain(group), *_change(change))
        table.add_row(plain(benchmark), "all together", *_change(harm.overall), style="bold")
    return table


def _after(test: Paired) -> tuple[str, str, str]:
    return _percent(test.mean_b), _points(test.difference), _p(test)


def _change(change: Change) -> tuple[str, str, str]:
    return f"{change.queries:,}", _points(change.change), f"{change.losing:.1%}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p(test: Paired) -> str:
    return f"{test.p:.4f}{'*' if test.significant else ''}"

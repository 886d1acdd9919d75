"""`fieldscope measure`: whether a difference is real, what a budget costs, what comparison pays, and who is harmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.commands.audit import agreement, audit, reliability
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import json_option, model_options
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.paired import Paired
    from fieldscope.eval.measures.regressions import Change, Harm
    from fieldscope.eval.measures.studies import BudgetStudy, ComparisonStudy

_split = click.option("--split", metavar="NAME", help="test, validation, ...  [default: test]")
_strategy = click.option("--strategy", "name", default=DEFAULT_STRATEGY, show_default=True, metavar="NAME|FILE")
_study_out = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the runs, the figure (PNG) and its data (JSON and CSV) go.",
)


@click.group()
def measure() -> None:
    """Measure runs and strategies: significance, budgets, comparisons, harm, and what the model's word is worth."""


for command in (reliability, audit, agreement):
    measure.add_command(command)


@measure.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN_A RUN_B ...", type=click.Path(path_type=Path))
@click.option("--metric", default="AP@50", show_default=True, metavar="NAME", help="As in a run's metrics.json.")
@json_option
def significance(runs: tuple[Path, ...], metric: str, as_json: bool) -> None:
    """Compare every two finished runs over the same queries.

    Prints the two-sided p of a paired randomisation test over queries and a bootstrap interval of the difference.
    """
    from fieldscope.eval.measures.paired import compare
    from fieldscope.eval.runs.read import read_metric

    if len(set(runs)) < max(len(runs), 2):
        raise click.UsageError("name two or more different runs")
    values = {run: read_metric(run, metric) for run in runs}
    found: list[tuple[Path, Path, Paired]] = []
    for a, b in combinations(runs, 2):
        if values[a].keys() != values[b].keys():
            raise ConfigError(f"{a} and {b} are runs over different queries; compare runs of one benchmark and split")
        found.append((a, b, compare(values[a], values[b])))
    if as_json:
        rows = [{"a": str(a), "b": str(b), **_paired(test)} for a, b, test in found]
        show_json({"metric": metric, "tests": rows})
        return
    columns = ("A", "B", "of A", "of B", "difference", "95 % interval", "p", "won", "lost")
    table = _table(f"{metric}, percent; B against A", *columns)
    for a, b, test in found:
        interval = f"{_points(test.low)} to {_points(test.high)}"
        ends = (_percent(test.mean_a), _percent(test.mean_b), _points(test.difference), interval, _p(test))
        table.add_row(plain(str(a)), plain(str(b)), *ends, str(test.wins), str(test.losses))
    show(table, "* p < 0.05, two-sided paired randomisation test over queries")


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@_strategy
@click.option(
    "--shares",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    default=(0.1, 0.25, 0.5, 1.0),
    metavar="SHARE ...",
    help="Of the calls that a query takes without a budget, in the mean.  [default: 0.1 0.25 0.5 1]",
)
@_split
@_study_out
@json_option
@model_options
def budget(
    benchmark: str,
    name: str,
    shares: tuple[float, ...],
    split: str | None,
    out: Path,
    as_json: bool,
    settings: Settings,
) -> None:
    """Run a strategy within shares of the calls that it would make, and see what is left of its gain.

    Writes budget.png, budget.json and budget.csv.
    """
    from fieldscope.eval.measures.figure import draw_budget, write_data
    from fieldscope.service.workflows.studies import run_budgets

    study = run_budgets(benchmark, name, shares, split, settings, out)
    draw_budget(study, out / "budget.png", "mAP@50")
    data = _budget_data(study)
    write_data(out, "budget", data, data["points"])
    if as_json:
        show_json(data)
    else:
        _show_budget(study, out)


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@_strategy
@click.option(
    "--queries", type=click.IntRange(min=1), default=40, show_default=True, metavar="N", help="Evenly over all of them."
)
@click.option(
    "--head", type=click.IntRange(min=3), default=20, show_default=True, metavar="K", help="Compare the best K images."
)
@_split
@_study_out
@json_option
@model_options
def comparison(
    benchmark: str,
    name: str,
    queries: int,
    head: int,
    split: str | None,
    out: Path,
    as_json: bool,
    settings: Settings,
) -> None:
    """See what comparing candidates with each other is worth, from the prior alone and from the verdicts.

    All pairs of the head are compared in both orders; what the scheduler would have made of at most 15 % of those
    calls is measured beside it. Writes comparison.png, comparison.json and comparison.csv.
    """
    from fieldscope.eval.measures.figure import draw_comparison, write_data
    from fieldscope.service.workflows.studies import run_comparisons

    studies = run_comparisons(benchmark, name, queries, head, split, settings, out)
    draw_comparison(studies, out / "comparison.png", "nDCG@10")
    rows = [_comparison_row(study) for study in studies]
    data = {"metric": "nDCG@10", "head": head, "starts": [asdict(study) | {"harms": study.harms} for study in studies]}
    write_data(out, "comparison", data, rows)
    if as_json:
        show_json(data)
    else:
        _show_comparisons(studies, out)


@measure.command(cls=SpacedCommand)
@click.argument("benchmarks", nargs=-1, required=True, metavar="BENCHMARK ...")
@_strategy
@_split
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the runs go, as OUT/BENCHMARK-SPLIT/STRATEGY.  [default: runs]",
)
@json_option
@model_options
def harm(
    benchmarks: tuple[str, ...], name: str, split: str | None, out: Path | None, as_json: bool, settings: Settings
) -> None:
    """See where a strategy ranks worse than the first stage did.

    No harm is done where AP@50 falls by at most 0.01 in the mean of every supercategory, and at most 5 % of a
    benchmark's queries lose more than 0.05. Exits with 1 where a bound is broken.
    """
    from fieldscope.service.workflows.studies import run_harm

    found = {each: run_harm(each, name, split, settings, out) for each in dict.fromkeys(benchmarks)}
    broken = [f"{each}: {line}" for each, told in found.items() for line in told.broken]
    if as_json:
        sets = {each: asdict(told) | {"broken": told.broken} for each, told in found.items()}
        show_json({"strategy": name, "benchmarks": sets, "harms": bool(broken)})
    else:
        show(_harm_table(name, found))
    if broken:
        raise ConfigError(f"{name} does harm: {'; '.join(broken)}")


def _comparison_row(study: ComparisonStudy) -> dict[str, Any]:
    return {
        "start": study.start,
        "queries": study.all_pairs.queries,
        "before": study.before,
        "all_pairs": study.all_pairs.mean_b,
        "all_pairs_p": study.all_pairs.p,
        "scheduled": study.scheduled.mean_b,
        "scheduled_p": study.scheduled.p,
        "recovered": study.recovered,
        "calls_all": study.calls_all,
        "calls_scheduled": study.calls_scheduled,
    }


def _budget_data(study: BudgetStudy) -> dict[str, Any]:
    return {
        "metric": "mAP@50",
        "prior": study.prior,
        "free": study.free,
        "points": [asdict(point) for point in study.points],
        "steps": [
            {"smaller": smaller, "larger": larger, **_paired(step)} for (smaller, larger), step in study.steps.items()
        ],
        "worse": [list(pair) for pair in study.worse],
    }


def _show_budget(study: BudgetStudy, out: Path) -> None:
    columns = ("budget", "calls allowed", "calls used", "mAP@50", "gain kept")
    table = _table("mAP@50 by calls a query, percent", *columns, numbers=4)
    table.add_row("prior", "0", "0.0", _percent(study.prior), "")
    for point in study.points:
        kept = "-" if point.kept is None else f"{point.kept:.0%}"
        table.add_row(f"{point.share:.0%}", str(point.max_calls), f"{point.calls:.1f}", _percent(point.value), kept)
    table.add_row("no budget", "", "", _percent(study.free), "100%")
    steps = _table("what a larger budget changes", "from", "to", "difference", "p", numbers=4)
    for (smaller, larger), step in study.steps.items():
        steps.add_row(f"{smaller:.0%}", f"{larger:.0%}", _points(step.difference), _p(step))
    worse = "; ".join(f"{larger:.0%} is significantly worse than {smaller:.0%}" for smaller, larger in study.worse)
    show(
        table, steps, worse or "no larger budget is significantly worse than a smaller one", _figure(out / "budget.png")
    )


def _show_comparisons(studies: Sequence[ComparisonStudy], out: Path) -> None:
    columns = ("started from", "after", "comparisons", "nDCG@10", "difference", "p", "gain recovered")
    table = _table("nDCG@10 by comparisons a query, percent", *columns, numbers=5)
    for study in studies:
        recovered = "-" if study.recovered is None else f"{study.recovered:.0%}"
        table.add_row(study.start, "none", "0", _percent(study.before), "", "", "")
        table.add_row("", "scheduled", f"{study.calls_scheduled:.0f}", *_after(study.scheduled), recovered)
        table.add_row("", "all pairs", f"{study.calls_all:.0f}", *_after(study.all_pairs), "")
    harmed = [f"comparisons do harm where the ranking starts from {study.start}" for study in studies if study.harms]
    show(table, *harmed, _figure(out / "comparison.png"))


def _after(test: Paired) -> tuple[str, str, str]:
    return _percent(test.mean_b), _points(test.difference), _p(test)


def _figure(path: Path) -> str:
    return f"The figure is {path}, with its data beside it"


def _harm_table(name: str, found: dict[str, Harm]) -> Table:
    title = f"{name} against the first stage: change of AP@50 in points, queries that lose more than 5 points"
    table = _table(title, "benchmark", "supercategory", "queries", "change", "losing")
    for each, told in found.items():
        for group, change in told.groups.items():
            table.add_row(plain(each), plain(group), *_change(change))
        table.add_row(plain(each), "all together", *_change(told.overall), style="bold")
    return table


def _change(change: Change) -> tuple[str, str, str]:
    return f"{change.queries:,}", _points(change.change), f"{change.losing:.1%}"


def _paired(test: Paired) -> dict[str, Any]:
    return asdict(test) | {"significant": test.significant}


def _table(title: str, *columns: str, numbers: int | None = None) -> Table:
    """A plain table whose last `numbers` columns (all but two, by default) are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = "left"
    texts = 2 if numbers is None else len(columns) - numbers
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < texts else "right", overflow="fold")
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p(test: Paired) -> str:
    return f"{test.p:.4f}{'*' if test.significant else ''}"

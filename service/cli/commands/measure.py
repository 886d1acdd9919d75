"""`fieldscope measure`: whether a difference is real, what a budget costs, what comparison gains and what is harmed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.commands.audit import agreement, audit, reliability
from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import (
    count_option,
    file_option,
    folder_option,
    json_option,
    model_options,
    split_option,
    strategy_option,
)
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.service.workflows.steadiness import SteadinessStudy

_steady_out = folder_option("The folder for the runs and the data (JSON and CSV).", required=True)
_study_out = folder_option("The folder for the runs, the figure (PNG) and its data (JSON and CSV).", required=True)


@click.group()
def measure() -> None:
    """Measure runs and strategies: significance, budgets, comparisons, harm, and how far to trust a model."""


for command in (reliability, audit, agreement):
    measure.add_command(command)


@measure.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN_A RUN_B ...", type=click.Path(path_type=Path))
@click.option("--metric", metavar="NAME", help="A metric of metrics.json.  [default: the benchmark's headline]")
@json_option
def significance(runs: tuple[Path, ...], metric: str | None, as_json: bool) -> None:
    """Compare every two finished runs over the same queries.

    Prints the two-sided p of a paired randomisation test over queries and a bootstrap interval of the difference.
    """
    from fieldscope.service.cli.tables.measure import significance_table
    from fieldscope.service.workflows.studies import compare_pairs, paired_data

    if len(set(runs)) < max(len(runs), 2):
        raise click.UsageError("only one run was given, or one of them twice; name two or more different runs")
    metric, tests = compare_pairs(runs, metric)
    if as_json:
        rows = [{"a": str(a), "b": str(b), **paired_data(test)} for a, b, test in tests]
        show_json({"metric": metric, "tests": rows})
    else:
        note = "* p < 0.05, two-sided paired randomisation test over queries"
        show(significance_table(metric, tests), note)


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@strategy_option
@click.option(
    "--shares",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    default=(0.1, 0.25, 0.5, 1.0),
    metavar="SHARE ...",
    help="Shares of the average number of calls without a budget.  [default: 0.1 0.25 0.5 1]",
)
@split_option
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
    """Run a strategy under smaller and smaller budgets, and see how much of its gain each keeps.

    Writes budget.png, budget.json and budget.csv.
    """
    from fieldscope.service.cli.tables.measure import budget_tables
    from fieldscope.service.workflows.evaluate import EvaluationPlan
    from fieldscope.service.workflows.studies import run_budgets, write_budgets

    study = run_budgets(EvaluationPlan(benchmark, split, out=out), name, settings, shares)
    data = write_budgets(study, out)
    if as_json:
        show_json(data)
    else:
        show(*budget_tables(study), _figure(out / "budget.png"))


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@strategy_option
@click.option(
    "--queries", type=click.IntRange(min=1), default=40, show_default=True, metavar="N", help="How many queries."
)
@click.option(
    "--head", type=click.IntRange(min=3), default=20, show_default=True, metavar="K", help="Compare the best K images."
)
@split_option
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
    """Measure what comparing candidates with each other gains, from the prior alone and from the verdicts.

    All pairs among the best images are compared in both orders. The same is measured for the comparisons that the
    scheduler would choose, at most 15 % of these calls. Queries are taken evenly from all of the split. Writes
    comparison.png, comparison.json and comparison.csv.
    """
    from fieldscope.service.cli.tables.measure import comparison_tables
    from fieldscope.service.workflows.evaluate import EvaluationPlan
    from fieldscope.service.workflows.studies import run_comparisons, write_comparisons

    studies = run_comparisons(EvaluationPlan(benchmark, split, out=out), name, settings, queries, head)
    data = write_comparisons(studies, head, out)
    if as_json:
        show_json(data)
    else:
        show(*comparison_tables(studies), _figure(out / "comparison.png"))


@measure.command(cls=SpacedCommand)
@click.argument("benchmarks", nargs=-1, required=True, metavar="BENCHMARK ...")
@strategy_option
@split_option
@folder_option("The folder for the runs, as FOLDER/BENCHMARK-SPLIT/STRATEGY.  [default: runs]")
@json_option
@model_options
def harm(
    benchmarks: tuple[str, ...], name: str, split: str | None, out: Path | None, as_json: bool, settings: Settings
) -> None:
    """Find where a strategy ranks worse than the first stage.

    A strategy does no harm if the mean AP (the benchmark's headline: AP@50, or on INQUIRE-Rerank AP@100) of no
    supercategory falls by more than 0.01, and at most 5 % of a benchmark's queries lose more than 0.05. Exits with 1 if
    it does.
    """
    from fieldscope.service.cli.tables.measure import harm_table
    from fieldscope.service.workflows.evaluate import EvaluationPlan
    from fieldscope.service.workflows.studies import run_harm

    plans = [EvaluationPlan(benchmark, split, out=out) for benchmark in dict.fromkeys(benchmarks)]
    harms = {plan.benchmark: run_harm(plan, name, settings) for plan in plans}
    broken = [f"{benchmark}: {line}" for benchmark, harm in harms.items() for line in harm.broken]
    if as_json:
        sets = {benchmark: asdict(harm) | {"broken": harm.broken} for benchmark, harm in harms.items()}
        show_json({"strategy": name, "benchmarks": sets, "harms": bool(broken)})
    else:
        show(harm_table(name, harms))
    if broken:
        raise ConfigError(f"{name} does harm: {'; '.join(broken)}; see its queries with `fieldscope view`")


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@strategy_option
@click.option(
    "--draws",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    metavar="K",
    help="How often to ask all of it.",
)
@split_option
@count_option("--limit", help_text="Only the first N queries.")
@_steady_out
@json_option
@model_options
def repeat(
    benchmark: str,
    name: str,
    draws: int,
    split: str | None,
    limit: int | None,
    out: Path,
    as_json: bool,
    settings: Settings,
) -> None:
    """Ask everything several times, and see which verdicts and ranks change.

    Each draw has its own seed, which belongs to every call: the cache answers no draw with the answers of another one.
    What changes is what the model draws at random, and what its server does not compute alike twice. The first draw is
    the ordinary run, and the others are compared with it. Writes repeat.json and repeat.csv.
    """
    from fieldscope.service.workflows.evaluate import EvaluationPlan
    from fieldscope.service.workflows.steadiness import run_repeats

    study = run_repeats(EvaluationPlan(benchmark, split, limit=limit, out=out), name, settings, draws)
    _show_study(study, "repeat", "draws", out, as_json)


@measure.command(cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@strategy_option
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="At most N other wordings of a query.",
)
@file_option(
    "--wordings",
    "file",
    help_text="YAML or JSON: a query's id or text, with a list of other wordings.  [default: FieldNotes' own, and for "
    "other benchmarks the LMM's]",
)
@split_option
@count_option("--limit", help_text="Only the first N queries.")
@_steady_out
@json_option
@model_options
def paraphrase(
    benchmark: str,
    name: str,
    number: int,
    file: Path | None,
    split: str | None,
    limit: int | None,
    out: Path,
    as_json: bool,
    settings: Settings,
) -> None:
    """Rank the same queries in other words, and see how far AP and ranks move.

    Where no file names the wordings, FieldNotes' grammar writes those of its text queries and captions, each checked
    against the scene graphs. For other benchmarks the LMM describes the query in its own words, and nothing checks
    that. Writes paraphrase.json and paraphrase.csv.
    """
    from fieldscope.service.workflows.evaluate import EvaluationPlan
    from fieldscope.service.workflows.steadiness import run_paraphrases

    study = run_paraphrases(EvaluationPlan(benchmark, split, limit=limit, out=out), name, settings, number, file)
    _show_study(study, "paraphrase", "wordings", out, as_json)


def _show_study(study: SteadinessStudy, file: str, varied: str, out: Path, as_json: bool) -> None:
    """Write a study's data as `file`, and show it; `varied` is what its rankings differ in."""
    from fieldscope.service.cli.tables.steadiness import steadiness_tables
    from fieldscope.service.workflows.steadiness import write_study

    data = write_study(study, file, out)
    if as_json:
        show_json(data)
    else:
        show(*steadiness_tables(study, varied), f"The data are {out / file}.json and {out / file}.csv")


def _figure(path: Path) -> str:
    return f"The figure is {path}, with its data beside it"

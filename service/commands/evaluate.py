"""`fieldscope eval`: a benchmark under one or more strategies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.errors import LMMError
from service.console import program, show, show_json, warn
from service.options import budget_options, dry_run_options, json_option, model_options, run_budget_options
from service.settings import DEFAULT_MAX_UNKNOWN, Settings
from service.spaced import SpacedCommand

if TYPE_CHECKING:
    from agent.budget import Budget

DEFAULT_STRATEGIES = ("clip", "yes-no", "yes-no-fused")


@click.command("eval", cls=SpacedCommand)
@click.argument("benchmark", metavar="BENCHMARK")
@click.option(
    "--strategy",
    "names",
    multiple=True,
    default=DEFAULT_STRATEGIES,
    metavar="NAME|FILE ...",
    help=f"One or more strategies; differences are to the first.  [default: {' '.join(DEFAULT_STRATEGIES)}]",
)
@click.option("--split", metavar="NAME", help="test, validation, ...  [default: test]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N queries only.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the runs go, a folder per strategy.  [default: runs/BENCHMARK-SPLIT]",
)
@click.option(
    "--max-unknown",
    type=click.FloatRange(0, 1),
    default=DEFAULT_MAX_UNKNOWN,
    show_default=True,
    metavar="SHARE",
    help="End with an error, after writing everything, where more of a run's calls than this gave no answer.",
)
@budget_options
@run_budget_options
@dry_run_options
@json_option
@model_options
def evaluate(
    benchmark: str,
    names: tuple[str, ...],
    split: str | None,
    limit: int | None,
    out: Path | None,
    max_unknown: float,
    budget: Budget,
    run_budget: Budget,
    dry_run: bool,
    price_file: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Evaluate strategies on a benchmark, in INQUIRE's metrics.

    BENCHMARK is fieldnotes (retrieval from the whole collection), fieldnotes-rerank (the top 100 of the bundled CLIP
    for each query), fieldnotes-composed (a reference image and a change to it), fieldnotes-dialogue (rounds of question
    and answer, each of which ranks again), or a Parquet file or folder in INQUIRE-Rerank's shape.

    Finished queries in the output folder are not run again: a command that was stopped goes on where it was. Where a
    budget runs out, a query is ranked by what is known of it.
    """
    from eval.report import payload, tables, unanswered, warnings
    from service.wiring import require_server
    from service.workload import evaluate_workload, flags_of, load_strategies, open_workload

    strategies = load_strategies(names)
    if dry_run:
        from service import dryrun

        task = dryrun.task_of(benchmark, split, limit, settings)
        dryrun.tell(dryrun.outlooks(task, strategies, settings, price_file, budget, run_budget), as_json)
        return
    if any(strategy.prompts for strategy in strategies):
        require_server(settings)
    workload = open_workload(benchmark, split, settings)
    flags = flags_of(workload, strategies, settings, limit)
    for flag in flags:
        warn(flag)
    folder = out or Path("runs") / f"{workload.benchmark.name}-{workload.benchmark.split}"
    summaries = evaluate_workload(workload, strategies, settings, folder, limit, flags, budget, run_budget)
    if as_json:
        show_json(payload(summaries) | ({"flags": list(flags)} if flags else {}))
    else:
        show(*tables(summaries), f"Runs are in {folder}; to read one: {program()} trace {summaries[-1].out} QUERY")
    too_many = [summary for summary in summaries if summary.unknown_share > max_unknown]
    for line in warnings(summaries, failed=too_many):
        if line not in flags:
            warn(line)
    if too_many:
        raise LMMError(
            f"{'; '.join(map(unanswered, too_many))}, more than --max-unknown allows ({max_unknown:.1%}). Everything "
            f"is written to {folder}; mend the model or its server and give the same command again"
        )

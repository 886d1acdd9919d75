"""`fieldscope eval`: a benchmark under one or more strategies."""

from __future__ import annotations

from pathlib import Path

import click

from service.console import program, show, show_json, warn
from service.options import json_option, model_options
from service.settings import Settings
from service.spaced import SpacedCommand

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
@json_option
@model_options
def evaluate(
    benchmark: str,
    names: tuple[str, ...],
    split: str | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Evaluate strategies on a benchmark, in INQUIRE's metrics.

    BENCHMARK is fieldnotes (retrieval from the whole collection), fieldnotes-rerank (the top 100 of the bundled CLIP
    for each query), or a Parquet file or folder in INQUIRE-Rerank's shape.

    Finished queries in the output folder are not run again: a command that was stopped goes on where it was.
    """
    from eval.report import payload, tables, warnings
    from service.wiring import require_server
    from service.workload import evaluate_workload, flags_of, load_strategies, open_workload

    strategies = load_strategies(names)
    if any(strategy.prompts for strategy in strategies):
        require_server(settings)
    workload = open_workload(benchmark, split, settings)
    flags = flags_of(workload, strategies, settings, limit)
    for flag in flags:
        warn(flag)
    folder = out or Path("runs") / f"{workload.benchmark.name}-{workload.benchmark.split}"
    summaries = evaluate_workload(workload, strategies, settings, folder, limit, flags)
    if as_json:
        show_json(payload(summaries) | ({"flags": list(flags)} if flags else {}))
    else:
        show(*tables(summaries), f"Runs are in {folder}; to read one: {program()} trace {summaries[-1].out} QUERY")
    for line in warnings(summaries):
        if line not in flags:
            warn(line)

"""`fieldscope published`: INQUIRE's published LMM answers as runs."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import json_option, runs_out, split_option


@click.command(cls=SpacedCommand)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("benchmark", metavar="BENCHMARK", type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    "names",
    multiple=True,
    default=("yes-no",),
    show_default=True,
    metavar="NAME|FILE ...",
    help="Strategies that rank by the answers about the whole query.",
)
@split_option
@runs_out
@json_option
def published(file: Path, benchmark: Path, names: tuple[str, ...], split: str | None, out: Path, as_json: bool) -> None:
    """Rank INQUIRE-Rerank by the LMM answers that its authors published.

    FILE is one of their caches (`...--cache.npy`), BENCHMARK a folder of INQUIRE-Rerank's Parquet files. The cache is a
    pickle; only plain values are read from it, and no code in it is run. No model is asked.
    """
    from fieldscope.service.cli.tables.evaluation import show_runs
    from fieldscope.service.workflows.published import rank_published

    summaries = rank_published(file, benchmark, names, split, out)
    show_runs(summaries, out, as_json)

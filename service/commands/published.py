"""`fieldscope published`: INQUIRE's published LMM answers as runs."""

from __future__ import annotations

from pathlib import Path

import click

from service.console import program, show, show_json, warn
from service.options import json_option
from service.spaced import SpacedCommand


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
    help="How the answers about the whole query are ranked.",
)
@click.option("--split", metavar="NAME", help="test, validation, ...  [default: test]")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the runs go, a folder per strategy.",
)
@json_option
def published(file: Path, benchmark: Path, names: tuple[str, ...], split: str | None, out: Path, as_json: bool) -> None:
    """Rank INQUIRE-Rerank by the LMM answers that its authors published.

    FILE is one of their caches (`...--cache.npy`), BENCHMARK a folder of INQUIRE-Rerank's Parquet files. The cache is a
    pickle: it is read as plain values, and nothing in it is run. No model is asked.
    """
    from eval.report import payload, tables, warnings
    from service.published import rank_published

    summaries = rank_published(file, benchmark, names, split, out)
    if as_json:
        show_json(payload(summaries))
    else:
        show(*tables(summaries), f"Runs are in {out}; to read one: {program()} trace {summaries[-1].out} QUERY")
    for line in warnings(summaries):
        warn(line)

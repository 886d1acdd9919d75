"""`fieldscope published`: INQUIRE's published LMM answers and lists of images as runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import json_option, runs_out, split_option

if TYPE_CHECKING:
    from fieldscope.eval.benchmarks.inquire_cache import Scoring

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=SpacedCommand)
@click.argument("file", metavar="FILE", type=_FILE)
@click.argument("benchmark", metavar="BENCHMARK", type=click.Path(path_type=Path))
@click.option(
    "--scoring",
    type=click.Choice(["fieldscope", "official"]),
    default="fieldscope",
    show_default=True,
    help="How answers become a ranking and its figures: as in Fieldscope's own runs, or exactly as in INQUIRE's "
    "scripts, which gives the published numbers.",
)
@click.option(
    "--strategy",
    "names",
    multiple=True,
    metavar="NAME|FILE ...",
    help="Strategies that rank by the answers about the whole query.  [default: yes-no; clip for a list of images]",
)
@click.option(
    "--first-stage",
    metavar="FILE",
    type=_FILE,
    help="For answers about full retrieval: the list of images (MODEL--top-1000.pkl) of which the best are reranked.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many images of a list are ranked.",
)
@split_option
@runs_out
@json_option
def published(
    file: Path,
    benchmark: Path,
    scoring: Scoring,
    names: tuple[str, ...],
    first_stage: Path | None,
    top: int,
    split: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Rank INQUIRE by the answers and lists that its authors published.

    FILE is the cache of an LMM's answers (`...--cache.npy`) or the list of a CLIP's best images
    (`...--top-1000.pkl`). BENCHMARK is a folder of INQUIRE-Rerank's Parquet files, or for full retrieval of
    INQUIRE-Fullrank's tables; no images and no embeddings are needed. These files are pickles; only plain values are
    read from them, and no code in them is run. No model is asked.
    """
    from fieldscope.service.cli.tables.evaluation import show_runs
    from fieldscope.service.workflows.published import PublishedRequest, rank_published

    request = PublishedRequest(file, benchmark, split, first_stage, top)
    summaries = rank_published(request, names, out, scoring)
    show_runs(summaries, out, as_json)

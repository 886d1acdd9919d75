"""`fieldscope rerank`: the user's own images, ranked for one query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import (
    budget_options,
    count_option,
    dry_run_options,
    filter_option,
    json_option,
    kept_option,
    metadata_option,
    model_options,
    predicates_option,
    promise_options,
    scorer_option,
    strategy_option,
)
from fieldscope.service.wiring.interruption import ANSWERS_KEPT, interruptible
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.skipped import skipped_lines

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget


@click.command(cls=SpacedCommand)
@click.option("--query", "text", required=True, metavar="TEXT", help="What the images should show.")
@click.option(
    "--images",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILES ...",
    help="A folder of images, image files, or Parquet files.",
)
@metadata_option
@filter_option
@count_option("--top-k", metavar="K", help_text="Show only the best K. All images are ranked.")
@scorer_option
@strategy_option
@predicates_option
@kept_option
@promise_options
@budget_options
@dry_run_options
@json_option
@model_options
def rerank(
    text: str,
    paths: tuple[Path, ...],
    metadata: Path | None,
    conditions: tuple[str, ...],
    top_k: int | None,
    name: str,
    predicates_file: Path | None,
    out: Path | None,
    precision: float | None,
    confidence: float | None,
    precision_from: Path | None,
    budget: Budget,
    dry_run: bool,
    probe: bool,
    price_file: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Rank your own images by how well they match a query.

    A CLIP scores every image first, or a scoring model that no stage of the strategy asks (--scorer); then the LMM
    looks at each of them. Images that can't be read are listed with the reason. If a budget runs out, the images are
    ranked by the answers so far. --filter chooses images by --metadata, or by time and place from EXIF.
    """
    from fieldscope.service.cli.tables.nothing import nothing_lines
    from fieldscope.service.cli.tables.ranking import kept_lines, ranking_table
    from fieldscope.service.metadata.filter import read_filter
    from fieldscope.service.wiring.predicates import read_predicates
    from fieldscope.service.wiring.prompts import prompts_for
    from fieldscope.service.wiring.queries import make_query
    from fieldscope.service.workflows.candidates import open_chosen
    from fieldscope.service.workflows.evaluate import load_strategies
    from fieldscope.service.workflows.keeping import keep_rankings, require_new_folder
    from fieldscope.service.workflows.models import Models
    from fieldscope.service.workflows.promise import open_promise
    from fieldscope.service.workflows.rerank import require_verdicts, rerank_query
    from fieldscope.service.workflows.selecting import select_chosen

    require_new_folder(out)
    (strategy,) = load_strategies([name], prompts_for(settings))
    query, models = make_query(text), Models(settings)
    models.require_words(strategy, query)
    wanted = read_filter(conditions) if conditions else None
    chosen = open_chosen(paths)
    if dry_run:
        chosen, _ = select_chosen(chosen, metadata, wanted)
        from fieldscope.service.cli.tables.dry_run import show_outlooks
        from fieldscope.service.workflows.dry_run import Task, outlooks

        task = Task((query,), (len(chosen.images.ids()),))
        show_outlooks(outlooks(task, [strategy], settings, price_file, budget, probe=probe), as_json)
        return
    promise = open_promise(precision, confidence, precision_from, strategy)
    bundled, promised = models.bundled_lmm(strategy), promise is not None
    predicates = read_predicates(predicates_file, strategy, bundled=bundled, promised=promised)
    work = rerank_query(query, chosen, strategy, models, budget, promise, predicates, metadata, wanted)
    ranking = interruptible(work, ANSWERS_KEPT)
    request = {"query": query.text, "strategy": strategy.name, "images": [str(path) for path in paths]}
    request |= {"filter": list(conditions)} if conditions else {}
    keep_rankings([ranking], out, query.text, str(paths[0].resolve()) if len(paths) == 1 else None, request)
    if as_json:
        show_json(ranking.payload(top_k))
    else:
        show(ranking_table(ranking, top_k), *skipped_lines(ranking.skipped))
        show(*nothing_lines(ranking.nothing), *kept_lines(ranking.kept))
    require_verdicts(ranking.result)

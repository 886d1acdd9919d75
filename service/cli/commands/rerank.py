"""`fieldscope rerank`: one's own images for one query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import budget_options, dry_run_options, json_option, model_options
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings
from fieldscope.service.workflows.skipped import skipped_lines

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.service.workflows.candidates import Chosen


@click.command(cls=SpacedCommand)
@click.option("--query", "text", required=True, metavar="TEXT", help="What the pictures should show.")
@click.option(
    "--images",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILES ...",
    help="A folder of images, image files, or Parquet files.",
)
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Show the best K only; all are looked at.")
@click.option("--scorer", metavar="NAME[:ARG]", help="A scorer for the prior.  [default: similarity by the CLIP]")
@click.option("--strategy", "name", default=DEFAULT_STRATEGY, show_default=True, metavar="NAME|FILE")
@budget_options
@dry_run_options
@json_option
@model_options
def rerank(
    text: str,
    paths: tuple[Path, ...],
    top_k: int | None,
    scorer: str | None,
    name: str,
    budget: Budget,
    dry_run: bool,
    price_file: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Rank your own images by how well they match a query.

    A CLIP gives the prior, the LMM looks at the images. Images that can't be read are listed with the reason, and the
    others are ranked. Where a budget runs out, the ranking stands on what is known.
    """
    from fieldscope.agent.strategies.strategy import load_strategy
    from fieldscope.eval.tuning.estimate import require_context
    from fieldscope.service.cli.tables.ranking import Ranking
    from fieldscope.service.wiring.bundled import require_known_words
    from fieldscope.service.wiring.models import load_scorer, require_server
    from fieldscope.service.wiring.queries import make_query
    from fieldscope.service.workflows.candidates import open_chosen, score
    from fieldscope.service.workflows.rerank import require_verdicts, rerank_once, warn_of_end

    strategy = load_strategy(name)
    query = make_query(text)
    asks_server = bool(strategy.prompts and settings.lmm_url)
    if strategy.prompts and not asks_server:
        require_known_words([query.text], "lmm")
    if not (settings.clip or scorer or asks_server):
        require_known_words([query.text], "clip")
    chosen = open_chosen(paths)
    if dry_run:
        from fieldscope.service.cli.tables.dry_run import tell
        from fieldscope.service.workflows import dry_run as dryrun

        task = dryrun.Task((query,), (len(chosen.images.ids()),))
        tell(dryrun.outlooks(task, [strategy], settings, price_file, budget), as_json)
        return
    if asks_server:
        require_context([strategy], [query], require_server(settings))
    flags = [] if scorer and not strategy.prompts else _flags(chosen, strategy, settings)
    for flag in flags:
        warn(flag)
    own_prior = scorer is not None or settings.clip is not None
    with_prior = not asks_server or own_prior or _bundled_clip_knows(query.text, chosen)
    if not with_prior:
        note("the bundled CLIP does not know these images, so the LMM ranks alone; name a CLIP with --clip for a prior")
    prior = load_scorer(scorer or "similarity", settings) if with_prior else None
    candidates, skipped = score(chosen, query, prior)
    origin = prior.fingerprint if prior else None
    result = rerank_once(query, candidates, chosen.images, strategy, settings, flags, budget, origin)
    prior_name = (scorer or settings.clip or "bundled") if with_prior else None
    models = {"clip": prior_name, "lmm": _lmm_name(strategy, settings)}
    ranking = Ranking(result, chosen.images, skipped, models)
    if as_json:
        show_json(ranking.payload(top_k))
    else:
        show(ranking.table(top_k))
        show(*skipped_lines(skipped))
    for flag in result.flags:
        if flag not in flags:
            warn(flag)
    warn_of_end(result)
    require_verdicts(result)


def _flags(chosen: Chosen, strategy: Strategy, settings: Settings) -> list[str]:
    """A warning where a bundled model judges foreign images."""
    from fieldscope.service.wiring.bundled import FOREIGN
    from fieldscope.service.wiring.own_pictures import all_fieldnotes

    if settings.lmm_url if strategy.prompts else settings.clip:
        return []
    return [] if all_fieldnotes(chosen.images, chosen.images.ids()) else [FOREIGN]


def _bundled_clip_knows(text: str, chosen: Chosen) -> bool:
    from fieldscope.service.wiring.bundled import unknown_words
    from fieldscope.service.wiring.own_pictures import all_fieldnotes

    return not unknown_words([text], "clip") and all_fieldnotes(chosen.images, chosen.images.ids())


def _lmm_name(strategy: Strategy, settings: Settings) -> str | None:
    return (settings.model or "bundled") if strategy.prompts else None

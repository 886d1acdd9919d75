"""`fieldscope search`: an index searched by text, by an image and a change, or by a dialogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.export_options import export_options
from fieldscope.service.cli.options import (
    budget_options,
    count_option,
    file_option,
    filter_option,
    folder_option,
    json_option,
    kept_option,
    metadata_option,
    model_options,
    opened_option,
    predicates_option,
    promise_options,
    scorer_option,
)
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.interruption import ANSWERS_KEPT, interruptible
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.types import Predicate
    from fieldscope.service.cli.export_options import Outputs
    from fieldscope.service.workflows.ranking import Ranking

SHOWN = 20
CONFIRMED = 0.5
"""P(match) from which images are copied, unless --min-p says otherwise."""

_FIRST_STAGE = "clip"
"""The strategy that ranks images as the index finds them."""


@click.command()
@click.option("--index", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--query", "text", metavar="TEXT", help="What the images should show.")
@file_option(
    "--queries",
    "queries_file",
    help_text="Queries, a line each: a text, or a JSON object with `id` and `text`. They are kept as one search.",
)
@click.option(
    "--reference",
    metavar="IMAGE",
    help="An image of the index, by its id or file. --query then says how the wanted images differ from it.",
)
@file_option(
    "--dialogue",
    "dialogue_file",
    help_text="A list of rounds in JSON or YAML, each a question and an answer. --query is the caption before them.",
)
@click.option(
    "--instruction",
    metavar="TEXT",
    help="What a match is, for an encoder that reads an instruction.  [default: as the strategy says]",
)
@filter_option
@metadata_option
@count_option(
    "-k",
    "--top-k",
    metavar="K",
    help_text=f"How many images to find.  [default: {SHOWN}; with --rerank as the strategy says, {SHOWN} shown]",
)
@opened_option
@click.option("--rerank", "reranking", is_flag=True, help="Let the LMM look at the images that were found.")
@click.option("--strategy", "name", metavar="NAME|FILE", help=f"How to rerank.  [default: {DEFAULT_STRATEGY}]")
@file_option("--csv", "csv_file", help_text="Also write the ranking as CSV.")
@folder_option("Copy the files that were found into FOLDER. No file is overwritten.", "--copy-to")
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Copy only images with a match probability of at least P, and none where no image seems to match; 0 copies "
    f"all.  [default: {CONFIRMED} with --rerank]",
)
@predicates_option
@kept_option
@export_options
@promise_options
@budget_options
@json_option
@scorer_option
@model_options
def search(
    folder: Path,
    text: str | None,
    queries_file: Path | None,
    reference: str | None,
    dialogue_file: Path | None,
    instruction: str | None,
    conditions: tuple[str, ...],
    metadata: Path | None,
    top_k: int | None,
    opened: bool,
    reranking: bool,
    name: str | None,
    csv_file: Path | None,
    copy_to: Path | None,
    min_p: float | None,
    predicates_file: Path | None,
    out: Path | None,
    outputs: Outputs,
    precision: float | None,
    confidence: float | None,
    precision_from: Path | None,
    budget: Budget,
    as_json: bool,
    settings: Settings,
) -> None:
    """Search an index by text, by an image and a change to it, or by a dialogue, and rerank what was found.

    With --rerank the LMM looks at the images that the encoder found. A strategy that writes descriptions of the query
    searches by them, too, and searches again if it finds too little. --filter chooses by the metadata that `fieldscope
    index` kept beside the index; --metadata replaces its table.
    """
    if (text is None) == (queries_file is None):
        raise click.UsageError("there is no query, or there are two; give one of --query and --queries")
    if queries_file is not None and (reference or dialogue_file or csv_file or copy_to or outputs.any):
        raise click.UsageError(
            "--queries can't go with --reference, --dialogue and the options that write files; leave one of them out"
        )
    if name is not None and not reranking:
        raise click.UsageError("--strategy needs --rerank; add it")
    if min_p is not None and not (reranking and copy_to):
        raise click.UsageError("--min-p needs --rerank and --copy-to; add both")
    if precision is not None and not reranking:
        raise click.UsageError("--precision needs --rerank; add it")
    if precision is not None and min_p is not None:
        raise click.UsageError("--precision and --min-p are two thresholds; use one of them")
    if predicates_file is not None and not reranking:
        raise click.UsageError("--predicates needs --rerank; add it")
    if settings.scorer is not None and not reranking:
        raise click.UsageError("--scorer needs --rerank and a strategy that uses it, such as cross-encoder; add both")
    if reference is not None and dialogue_file is not None:
        raise click.UsageError("--reference and --dialogue make two kinds of query; use one of them")
    from fieldscope.service.cli.files import write_text
    from fieldscope.service.metadata.filter import read_filter
    from fieldscope.service.wiring.predicates import read_predicates
    from fieldscope.service.wiring.prompts import prompts_for
    from fieldscope.service.wiring.queries import make_query, read_queries
    from fieldscope.service.workflows.evaluate import load_strategies
    from fieldscope.service.workflows.keeping import keep_rankings, require_new_folder
    from fieldscope.service.workflows.models import Models
    from fieldscope.service.workflows.promise import open_promise
    from fieldscope.service.workflows.rerank import require_verdicts
    from fieldscope.service.workflows.search import search_each

    require_new_folder(out)
    (strategy,) = load_strategies([(name or DEFAULT_STRATEGY) if reranking else _FIRST_STAGE], prompts_for(settings))
    strategy = strategy.instructed(instruction)
    promise = open_promise(precision, confidence, precision_from, strategy)
    models = Models(settings)
    bundled, promised = models.bundled_lmm(strategy), promise is not None
    predicates = read_predicates(predicates_file, strategy, bundled=bundled, promised=promised)
    wanted = top_k if reranking else top_k or SHOWN
    if queries_file is not None:
        queries = read_queries(queries_file)
    else:
        queries = [make_query(text or "", dialogue_file).model_copy(update={"reference_image": reference})]
    query = queries[0]
    needed = reranking or copy_to is not None or outputs.needs_images
    work = search_each(
        queries,
        folder,
        strategy,
        settings,
        top_k=wanted,
        budget=budget,
        needs_images=needed,
        promise=promise,
        predicates=predicates,
        metadata=metadata,
        wanted=read_filter(conditions) if conditions else None,
    )
    rankings = interruptible(work, ANSWERS_KEPT)
    ranking = rankings[0]
    request: dict[str, Any] = {"query": query.text, "collection": str(folder.resolve()), "strategy": strategy.name}
    request |= {"reference": ranking.result.reference_image} if reference is not None else {}
    request |= {"dialogue": [turn.model_dump() for turn in query.dialogue]} if query.dialogue else {}
    request |= {"top_k": top_k} if top_k is not None else {}
    request |= {"predicates": [_asked(each) for each in predicates]} if predicates else {}
    limits = {name: limit for name, limit in asdict(budget).items() if limit is not None}
    request |= {"budget": limits} if limits else {}
    request |= {"precision": precision, "confidence": confidence} if precision is not None else {}
    request |= {"filter": list(conditions)} if conditions else {}
    request |= {"instruction": instruction} if instruction is not None else {}
    shown_as = query.text if len(queries) == 1 else f"{len(queries)} queries of {queries_file}"
    keep_rankings(rankings, out, shown_as, str(folder.resolve()), request)
    if queries_file is not None:
        _show_all(rankings, top_k or SHOWN, folder, opened, as_json)
        return
    if as_json:
        rounds = [turn.model_dump() for turn in query.dialogue]
        reference_image = ranking.result.reference_image
        show_json({"query": query.text, "reference": reference_image, "dialogue": rounds} | ranking.payload())
    else:
        _show(ranking, top_k or SHOWN, folder, opened)
    if csv_file is not None:
        write_text(csv_file, ranking.csv())
        note(f"The ranking is in {csv_file}.")
    if copy_to is not None:
        threshold = promise.cutoff.threshold if promise else CONFIRMED if strategy.prompts else None
        _copy(ranking, copy_to, threshold if min_p is None else min_p)
    if outputs.any:
        from fieldscope.service.exports.finds import finds_of

        outputs.write(finds_of(ranking))
    require_verdicts(ranking.result)


def _asked(predicate: Predicate) -> dict[str, Any]:
    """A predicate as a request names it."""
    return predicate.model_dump(mode="json", include={"question", "expected", "weight"})


def _show_all(rankings: Sequence[Ranking], shown: int, folder: Path, opened: bool, as_json: bool) -> None:
    from fieldscope.service.workflows.rerank import require_verdicts

    if as_json:
        show_json({"queries": [{"id": each.result.query_id} | each.payload() for each in rankings]})
    else:
        for each in rankings:
            show("", f"{each.query} ({each.result.query_id})")
            _show(each, shown, folder, opened)
    for each in rankings:
        require_verdicts(each.result)


def _show(ranking: Ranking, shown: int, folder: Path, opened: bool) -> None:
    from fieldscope.service.cli.tables.nothing import nothing_lines
    from fieldscope.service.cli.tables.ranking import kept_lines, ranking_table

    show(ranking_table(ranking, shown, opened=opened))
    if (more := len(ranking.result.ranking if opened else ranking.firsts()) - shown) > 0:
        show(f"{more} more were found; --json, --csv and -k show them.")
    if ranking.skipped:
        show(f"{len(ranking.skipped):,} files are not in this index; {folder / 'skipped.json'} says why.")
    show(*nothing_lines(ranking.nothing), *kept_lines(ranking.kept))


def _copy(ranking: Ranking, folder: Path, min_p: float | None) -> None:
    from fieldscope.service.cli.files import copy_all

    if ranking.nothing and min_p:
        warn(f"No image seems to match, so none was copied to {folder}. --min-p 0 copies all of them.")
        return
    matches = [r for r in ranking.result.ranking if min_p is None or (r.p_match is not None and r.p_match >= min_p)]
    files = [path for ranked in matches if (path := ranking.path(ranked.image_id))]
    copies = copy_all(files, folder)
    note(f"Copied {len(copies)} of {len(ranking.result.ranking)} images to {folder}.")
    if len(files) < len(matches):
        missing = len(matches) - len(files)
        warn(f"{missing} of {len(matches)} images have no file of their own, or it is gone. They were not copied.")

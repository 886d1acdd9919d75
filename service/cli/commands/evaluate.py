"""`fieldscope eval`: a benchmark under one or more strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.options import (
    budget_options,
    choices_option,
    count_option,
    dry_run_options,
    evaluation_options,
    file_option,
    folder_option,
    json_option,
    ray_option,
    run_budget_options,
    scorer_option,
)
from fieldscope.service.cli.replay_option import ReplayableCommand, open_recorded, replay_option, replayed
from fieldscope.service.wiring.settings import DEFAULT_MAX_UNKNOWN, Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget

DEFAULT_STRATEGIES = ("clip", "yes-no", "yes-no-fused")


@click.command("eval", cls=ReplayableCommand)
@click.argument("benchmark", metavar="BENCHMARK", required=False)
@click.option(
    "--strategy",
    "names",
    multiple=True,
    metavar="NAME|FILE ...",
    help=f"One or more strategies; differences are to the first.  [default: {' '.join(DEFAULT_STRATEGIES)}]",
)
@file_option(
    "--strategy-grid",
    "grid",
    help_text="Evaluate every combination in this grid file instead: YAML with a base strategy and lists of values for "
    "its settings.",
)
@click.option("--member", "members", multiple=True, metavar="NAME ...", help="Evaluate only these members of the grid.")
@click.option("--split", metavar="NAME", help="test, validation, ...  [default: test; of a grid: validation]")
@folder_option(
    "The folder of a data set's files: flickr30k, coco, fashioniq, cirr, circo, visdial, mbeir, folder.", "--data"
)
@choices_option
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME ...",
    help="Metrics to compute beside the benchmark's own: AP, nDCG, RR, P, recall (or R) or hits, at any cut-off, such "
    "as R@20.",
)
@file_option("--only", help_text="Only the queries in this file: ids or texts, one a line.")
@file_option("--without", help_text="All queries except those in this file.")
@count_option("--limit", help_text="Only the first N queries.")
@folder_option(
    "A folder of INQUIRE-Fullrank's embeddings, or one with a folder for each model.  [default: those in or beside "
    "its tables]",
    "--embeddings",
)
@folder_option("The folder for the runs, with a folder for each strategy.  [default: runs/BENCHMARK-SPLIT]")
@click.option(
    "--max-unknown",
    type=click.FloatRange(0, 1),
    default=DEFAULT_MAX_UNKNOWN,
    show_default=True,
    metavar="SHARE",
    help="Exit with an error, after everything is written, if more than this share of a run's calls failed.",
)
@replay_option
@budget_options
@run_budget_options
@ray_option
@dry_run_options
@json_option
@scorer_option
@evaluation_options
def evaluate(
    benchmark: str | None,
    names: tuple[str, ...],
    grid: Path | None,
    members: tuple[str, ...],
    split: str | None,
    data: Path | None,
    choices: Mapping[str, str],
    metrics: tuple[str, ...],
    only: Path | None,
    without: Path | None,
    limit: int | None,
    out: Path | None,
    max_unknown: float,
    replay: str | None,
    budget: Budget,
    run_budget: Budget,
    ray: str | None,
    dry_run: bool,
    probe: bool,
    price_file: Path | None,
    as_json: bool,
    prompt_sets: tuple[str, ...],
    encoders: tuple[str, ...],
    settings: Settings,
) -> None:
    """Evaluate strategies on a benchmark, with INQUIRE's metrics.

    BENCHMARK is one of: fieldnotes (retrieval from the whole collection); fieldnotes-rerank (the encoder's own top
    100 for each query); fieldnotes-composed (a reference image and a change to it); fieldnotes-universal (texts,
    pictures and both, under eight types of task); fieldnotes-dialogue (rounds of question and answer, each ranked);
    fieldnotes-unmatched (queries that no image matches); fieldnotes-wild (small, dark and half hidden animals in
    large frames, each query's top 100) and fieldnotes-wild-fullrank (the same, from the whole collection);
    flickr30k, coco, fashioniq, cirr, circo, visdial or mbeir with the folder of its files (--data), scored as it
    was published unless --set says otherwise; folder, for queries, images and judgments of your own; a Parquet file
    or folder in INQUIRE-Rerank's format (its candidates keep the files' scores unless --encoder names another first
    stage); a folder of INQUIRE-Fullrank's tables with its embeddings (name the model that made them with
    --encoder); or evendrow/INQUIRE-Rerank, which is downloaded once from the Hugging Face hub.

    A grid runs on a validation split and is shown best first. On the test split only a single --member is allowed: the
    one that was chosen.

    Finished queries in the output folder are kept: after an interruption, rerun the command to continue. If a budget
    runs out, the query is ranked by the answers so far.

    With --ray the workers of a Ray cluster rank the queries; they ask the same servers, and keep answers here.

    --replay FILE needs no benchmark, model, server or images: it repeats recorded runs, or runs any strategy whose
    calls are all recorded. It stops at the first call that is not.
    """
    from fieldscope.eval.queries import Selection
    from fieldscope.service.cli.tables.dry_run import show_outlooks
    from fieldscope.service.cli.tables.evaluation import show_evaluation
    from fieldscope.service.workflows.dry_run import preview
    from fieldscope.service.workflows.encoders import evaluate_encoders
    from fieldscope.service.workflows.evaluate import (
        EvaluationPlan,
        require_answers,
    )
    from fieldscope.service.workflows.replay import chosen_strategies, recorded_plan, replay_runs
    from fieldscope.service.workflows.sweep import DEFAULT_SPLIT, by_model, evaluate_grid, open_grid
    from fieldscope.service.workflows.variants import by_encoder, worded_strategies

    if members and grid is None:
        raise click.UsageError("--member needs --strategy-grid; add it")
    if names and grid is not None:
        raise click.UsageError("--strategy-grid already names the strategies; leave --strategy out")
    if len(prompt_sets) > 1 and (grid or replay):
        raise click.UsageError("--strategy-grid and --replay go with one --prompts; leave the others out")
    if ray is not None and (grid or replay):
        raise click.UsageError("--strategy-grid and --replay run in one process; leave --ray out")
    encoders = tuple(dict.fromkeys(encoders))
    if len(encoders) > 1 and (grid or replay):
        raise click.UsageError("--strategy-grid and --replay go with one --encoder; leave the others out")
    settings = replace(settings, encoder=encoders[0] if encoders else None)
    settings = replace(replayed(settings, replay), prompts=prompt_sets[0] if prompt_sets else None)
    recording = open_recorded(Path(replay), benchmark, split, dry_run, settings) if replay else None
    if (data or choices) and (recording is not None or benchmark is None):
        raise click.UsageError(
            "--data and --set go with the name of a data set, such as cirr; add it, without --replay"
        )
    if benchmark is None and recording is None:
        raise click.UsageError("Missing argument 'BENCHMARK'; give a benchmark, or a recording with --replay FILE")
    split = split or (DEFAULT_SPLIT if grid else None)
    named = f"{benchmark}:{data}" if data is not None else benchmark or ""
    plan = EvaluationPlan(
        named, split, Selection(only, without), limit, out, budget, run_budget, choices, metrics, ray=ray
    )
    if recording is not None:
        plan = recorded_plan(plan, recording)
    grid_members = open_grid(grid, members, plan, settings) if grid else ()
    strategies = []
    if len(prompt_sets) > 1:
        strategies = worded_strategies(names or DEFAULT_STRATEGIES, prompt_sets, settings)
    elif grid is None:
        strategies = chosen_strategies(recording, names, DEFAULT_STRATEGIES, settings)
    if dry_run:
        contests = by_model(grid_members, settings) if grid else by_encoder(strategies, settings, encoders)
        show_outlooks(preview(plan, contests, price_file, probe), as_json)
        return
    if grid:
        evaluation = evaluate_grid(plan, grid_members, settings, recording)
    elif recording is not None:
        evaluation = replay_runs(plan, recording, strategies, settings)
    else:
        evaluation = evaluate_encoders(plan, strategies, settings, encoders)
    show_evaluation(evaluation, max_unknown, as_json, grid, grid_members)
    require_answers(evaluation, max_unknown)

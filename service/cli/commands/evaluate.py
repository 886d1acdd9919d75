"""`fieldscope eval`: a benchmark under one or more strategies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import LMMError
from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import (
    budget_options,
    dry_run_options,
    json_option,
    model_options,
    run_budget_options,
)
from fieldscope.service.cli.replay_option import ReplayableCommand, open_recorded, replay_option, replayed
from fieldscope.service.wiring.feedback import program, warn
from fieldscope.service.wiring.settings import DEFAULT_MAX_UNKNOWN, Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.eval.tuning.grid import Member

DEFAULT_STRATEGIES = ("clip", "yes-no", "yes-no-fused")
_LIST = click.Path(path_type=Path, dir_okay=False)


@click.command("eval", cls=ReplayableCommand)
@click.argument("benchmark", metavar="BENCHMARK", required=False)
@click.option(
    "--strategy",
    "names",
    multiple=True,
    metavar="NAME|FILE ...",
    help=f"One or more strategies; differences are to the first.  [default: {' '.join(DEFAULT_STRATEGIES)}]",
)
@click.option(
    "--strategy-grid",
    "grid",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="In their place all combinations of a grid: YAML with a base strategy and lists of values for its settings.",
)
@click.option("--member", "members", multiple=True, metavar="NAME ...", help="Only these members of the grid.")
@click.option("--split", metavar="NAME", help="test, validation, ...  [default: test; of a grid: validation]")
@click.option("--only", type=_LIST, metavar="FILE", help="Only the queries of a list: ids or texts, one a line.")
@click.option("--without", type=_LIST, metavar="FILE", help="All queries but those of a list.")
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
@replay_option
@budget_options
@run_budget_options
@dry_run_options
@json_option
@model_options
def evaluate(
    benchmark: str | None,
    names: tuple[str, ...],
    grid: Path | None,
    members: tuple[str, ...],
    split: str | None,
    only: Path | None,
    without: Path | None,
    limit: int | None,
    out: Path | None,
    max_unknown: float,
    replay: str | None,
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
    and answer, each of which ranks again), a Parquet file or folder in INQUIRE-Rerank's shape, a folder
    of INQUIRE-Fullrank's tables with embeddings in or beside it (name with --clip the CLIP that made them), or
    evendrow/INQUIRE-Rerank, which is fetched from the Hugging Face hub once.

    A grid is run on a split that may decide a setting, and shown best first. On the test split it is refused, but for a
    single --member: the one that was chosen.

    Finished queries in the output folder are not run again: a command that was stopped goes on where it was. Where a
    budget runs out, a query is ranked by what is known of it.

    With --replay FILE no benchmark, model, server or picture is needed: recorded runs are run again, or any strategy
    whose calls are all among theirs. The first call that is not ends it.
    """
    from fieldscope.eval.queries import Selection
    from fieldscope.eval.report import payload, tables, unanswered, warnings
    from fieldscope.eval.runs.ledger import scored_notes
    from fieldscope.eval.tuning.estimate import require_context
    from fieldscope.eval.tuning.grid import ranked, require_may_decide
    from fieldscope.service.cli.tables.sweep import table
    from fieldscope.service.wiring.benchmarks import open_workload, selected
    from fieldscope.service.wiring.models import require_server
    from fieldscope.service.workflows import replay as replaying
    from fieldscope.service.workflows import sweep as sweeps
    from fieldscope.service.workflows.evaluate import evaluate_workload, flags_of

    settings = replayed(settings, replay)
    recording = open_recorded(Path(replay), benchmark, split, dry_run, settings) if replay else None
    if recording is not None:
        benchmark, split = recording.benchmark.name, recording.benchmark.split
        budget, run_budget = replaying.recorded_budgets(recording, budget, run_budget)
    if benchmark is None:
        raise click.UsageError("Missing argument 'BENCHMARK'.")
    found: tuple[Member, ...] = ()
    if grid is None and members:
        raise click.UsageError("--member goes with --strategy-grid")
    if grid is None:
        asked = [(settings, replaying.chosen_strategies(recording, names, DEFAULT_STRATEGIES))]
    else:
        if names:
            raise click.UsageError("--strategy-grid says which strategies; leave --strategy out")
        split = split or sweeps.DEFAULT_SPLIT
        found = sweeps.open_grid(grid, members, benchmark, split)
        asked = sweeps.by_model(found, settings)
    chosen = Selection(only, without)
    if dry_run:
        from fieldscope.service.workflows import dry_run as dryrun

        task = dryrun.task_of(benchmark, split, chosen, limit, settings)
        prospects = [
            outlook
            for model, strategies in asked
            for outlook in dryrun.outlooks(task, strategies, model, price_file, budget, run_budget)
        ]
        from fieldscope.service.cli.tables.dry_run import tell

        tell(prospects, as_json)
        return
    contexts = [
        require_server(model) if any(strategy.prompts for strategy in strategies) else None
        for model, strategies in asked
    ]
    if recording is None:
        workload = selected(open_workload(benchmark, split, settings), chosen)
    else:
        replaying.require_no_models([model for model, _ in asked])
        workload = selected(replaying.recorded_workload(recording), chosen)
        limit = limit or replaying.recorded_limit(recording)
    if grid is not None:
        require_may_decide(found, workload.benchmark.split)
    for (_, strategies), context in zip(asked, contexts, strict=True):
        require_context(strategies, workload.benchmark.queries[:limit], context)
    flagged = [flags_of(workload, strategies, model, limit) for model, strategies in asked]
    flags = tuple(dict.fromkeys(flag for own in flagged for flag in own))
    for flag in flags:
        warn(flag)
    name = f"{workload.benchmark.name}-{workload.benchmark.split}{chosen.suffix}"
    folder = out or (Path("runs") / name if recording is None else replaying.replay_folder(name))
    summaries = [
        summary
        for (model, strategies), own in zip(asked, flagged, strict=True)
        for summary in evaluate_workload(workload, strategies, model, folder, limit, own, budget, run_budget)
    ]
    if grid is not None:
        summaries = ranked(summaries)
    if as_json:
        told = payload(summaries) if grid is None else sweeps.payload(found, summaries, grid)
        show_json(told | ({"flags": list(flags)} if flags else {}))
    else:
        shown, one = (tables(summaries), summaries[-1]) if grid is None else ([table(summaries)], summaries[0])
        read_on = f"Runs are in {folder}; to read one: {program()} trace {one.out} QUERY"
        show(*shown, *scored_notes(summaries), read_on)
    for line in sweeps.cautions(found, summaries):
        warn(line)
    too_many = [summary for summary in summaries if summary.unknown_share > max_unknown]
    for line in warnings(summaries, failed=too_many):
        if line not in flags:
            warn(line)
    if too_many:
        raise LMMError(
            f"{'; '.join(map(unanswered, too_many))}, more than --max-unknown allows ({max_unknown:.1%}). Everything "
            f"is written to {folder}; mend the model or its server and give the same command again"
        )

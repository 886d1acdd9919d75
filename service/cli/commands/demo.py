"""`fieldscope demo`: what Fieldscope does, on the bundled benchmark with the bundled models."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import plain, show
from fieldscope.service.cli.options import encoder_options
from fieldscope.service.wiring.feedback import note, program, warn
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.types import RunSummary
    from fieldscope.service.workflows.ranked_image import RankedImage
    from fieldscope.service.workflows.reports import Evaluation, LoadedRun

STRATEGIES = ("clip", "agent")
QUERIES = 5
FULL_STRATEGIES = ("clip", "yes-no", "yes-no-fused", "agent")
FULL_QUERIES = 80
"""Half of the test queries, of every supercategory alike."""

HEAD = 3
"""The best ranks, whose pictures the agent gives reasons for."""

PICTURES = 24
"""How many pictures `--pictures` writes: the first of the validation split, which no figure rests on."""


@click.command()
@click.option("--full", is_flag=True, help=f"Rank {FULL_QUERIES} queries with {', '.join(FULL_STRATEGIES)}.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Rank the first N of the 160 test queries.  [default: {QUERIES}; with --full {FULL_QUERIES}]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    metavar="FOLDER",
    help="Write the runs to this folder.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help=f"Only write {PICTURES} pictures that the bundled models know to this folder.",
)
@encoder_options
def demo(full: bool, limit: int | None, out: Path, pictures: Path | None, settings: Settings) -> None:
    """Rank bundled images with the agent, and show the reasons and the gain.

    The bundled CLIP, or the encoder that you name, finds candidates; the bundled LMM looks at them. FieldNotes'
    pictures are drawn on first use. Every answer is remembered, so a second demo asks the model nothing and prints the
    same numbers.
    """
    from fieldscope.eval.report import warnings
    from fieldscope.service.wiring.prompts import prompts_for
    from fieldscope.service.workflows.evaluate import (
        Contest,
        EvaluationPlan,
        load_strategies,
        open_evaluation,
        run_opened,
    )
    from fieldscope.service.workflows.reports import Evaluation, load_run

    if pictures is not None:
        _write_pictures(pictures)
        return
    strategies = load_strategies(FULL_STRATEGIES if full else STRATEGIES, prompts_for(settings))
    limit = limit or (FULL_QUERIES if full else QUERIES)
    opened = open_evaluation(EvaluationPlan("fieldnotes-rerank", limit=limit, out=out), [Contest(settings, strategies)])
    note(f"ranking 100 candidates for each of {min(limit, len(opened.workload.benchmark.queries))} queries")
    summaries = run_opened(opened).runs
    evaluation = Evaluation(tuple(load_run(summary.out) for summary in summaries))
    show(*_moves(evaluation[-1]), _table(evaluation))
    if full:
        show(*_full_report(summaries, settings, strategies[0], out))
    show(*_conclusions(evaluation, summaries), "", *_next_steps(out, evaluation))
    for line in warnings(summaries):
        warn(line)


def _write_pictures(folder: Path) -> None:
    from fieldscope.core.errors import ConfigError
    from fieldscope.service.wiring.fieldnotes import pictures

    files = sorted(pictures("validation").files.values())[:PICTURES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise ConfigError(f"can't write to {folder} ({error.strerror}); choose another folder") from error
    show(f"{len(files)} pictures are in {folder}.")


def _moves(run: LoadedRun) -> Iterator[str]:
    """The picture that rose furthest into the head, and the one that sank furthest out of it, with reasons."""
    images = [(ranking.query, image) for ranking in run.values() for image in ranking]
    rose = max((pair for pair in images if pair[1].rank <= HEAD), key=lambda pair: pair[1].prior_rank)
    sank = max((pair for pair in images if pair[1].prior_rank <= HEAD), key=lambda pair: pair[1].rank)
    yield from _move("rose", *rose)
    yield from _move("sank", *sank)


def _move(verb: str, query: str, image: RankedImage) -> Iterator[str]:
    yield f'Query "{query}": image {image.image_id} {verb} from rank {image.prior_rank} to {image.rank}'
    yield f"  {image.reason}"
    if image.reason != image.why:
        yield f"  {image.why}"
    yield ""


def _table(evaluation: Evaluation) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    run = evaluation[0]
    benchmark, split = run.scored.benchmark
    table = Table(
        title=f"{benchmark} ({split}), {len(run.scored.values)} queries", title_justify="left", box=SIMPLE_HEAD
    )
    for column in ("strategy", "mAP@50", "gain in points [95 % interval]", "calls", "tokens"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for place, run in enumerate(evaluation):
        test = evaluation.effect(run.name).test if place else None
        gain = f"{100 * test.difference:+.1f} [{100 * test.low:+.1f}, {100 * test.high:+.1f}]" if test else ""
        spent = run.scored.spent
        mean = f"{100 * run.metric('AP@50').mean:.1f} %"
        table.add_row(plain(run.name), mean, gain, f"{spent.calls:,}", f"{spent.tokens:,}")
    return table


def _full_report(summaries: Sequence[RunSummary], settings: Settings, first: Strategy, out: Path) -> list[Table | str]:
    """Groups and costs, and what the first stage alone finds in the whole collection."""
    from fieldscope.service.cli.tables.evaluation import cost_table, group_table, quality_table
    from fieldscope.service.workflows.evaluate import EvaluationPlan, evaluate_benchmark

    retrieval = EvaluationPlan("fieldnotes", out=out / "fieldnotes")
    metrics = evaluate_benchmark(retrieval, [first], settings).runs[0].metrics
    return [
        quality_table(summaries),
        group_table(summaries),
        cost_table(summaries),
        f"The first stage alone, over the whole collection: mAP@50 {metrics['mAP@50']:.1%}, recall@100 "
        f"{metrics['first-stage recall@100']:.1%}.",
    ]


def _conclusions(evaluation: Evaluation, summaries: Sequence[RunSummary]) -> list[str]:
    before, after = (evaluation[place].metric("AP@50").mean for place in (0, -1))
    calls = sum(summary.cost.calls for summary in summaries)
    hits = sum(summary.cost.cached for summary in summaries)
    seconds = sum(summary.cost.wall for summary in summaries)
    return [
        f"The agent took mAP@50 from {before:.1%} to {after:.1%}: {100 * (after - before):+.1f} points.",
        f"This took {seconds:,.1f} s; {hits:,} of {calls:,} answers came from the cache.",
    ]


def _next_steps(out: Path, evaluation: Evaluation) -> list[str]:
    before, after = (run.scored.values for run in (evaluation[0], evaluation[-1]))
    most_improved = max(after, key=lambda query: after[query]["AP@50"] - before[query]["AP@50"])
    run = evaluation[-1]
    folder, trace = (shlex.quote(str(path)) for path in (out, run.folder))
    return [
        "Look at every question and answer in the viewer, at http://127.0.0.1:8600 once this runs:",
        f"  {program()} view {folder}",
        "Read how one query was ranked:",
        f"  {program()} trace {trace} {most_improved}",
    ]

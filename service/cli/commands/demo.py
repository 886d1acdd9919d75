"""`fieldscope demo`: the main job on the bundled benchmark, with the bundled models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show
from fieldscope.service.wiring.feedback import note, program, warn
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.eval.types import RunSummary

STRATEGIES = ("clip", "yes-no", "yes-no-fused")
QUERIES = 80
"""Half of the test queries, of every supercategory alike: two cores answer them in a minute or two."""


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=QUERIES,
    show_default=True,
    metavar="N",
    help="Rerank for the first N of the 160 test queries.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    metavar="FOLDER",
    help="Where the runs go.",
)
def demo(limit: int, out: Path) -> None:
    """Rerank the bundled benchmark, and print what was gained.

    The bundled CLIP finds the candidates, the bundled LMM looks at each of them. FieldNotes' pictures are drawn on
    first use, and every answer is remembered: a second demo asks nothing.
    """
    from fieldscope.eval.report import cost_table, group_table, quality_table, warnings
    from fieldscope.service.wiring.benchmarks import open_workload
    from fieldscope.service.workflows.evaluate import evaluate_workload, load_strategies

    settings = Settings()
    strategies = load_strategies(STRATEGIES)
    retrieval = open_workload("fieldnotes", "test", settings)
    note(f"the CLIP alone searches FieldNotes' test collection for {len(retrieval.benchmark.queries)} queries")
    (first_stage,) = evaluate_workload(retrieval, strategies[:1], settings, out / "fieldnotes")
    rerank = open_workload("fieldnotes-rerank", "test", settings)
    total = len(rerank.benchmark.queries)
    note(f"the LMM looks at 100 candidates for each of {min(limit, total)} queries (--limit {total} for all)")
    summaries = evaluate_workload(rerank, strategies, settings, out, limit)
    show(quality_table(summaries), group_table(summaries), cost_table(summaries))
    show(*_conclusions(first_stage, summaries), "", *_next_steps(out, summaries))
    for line in warnings(summaries):
        warn(line)


def _conclusions(first_stage: RunSummary, summaries: Sequence[RunSummary]) -> list[str]:
    before, *later = (summary.metrics["mAP@50"] or 0.0 for summary in summaries)
    after = max(later)
    calls = sum(summary.cost.calls for summary in summaries)
    hits = sum(summary.cost.cached for summary in summaries)
    seconds = sum(summary.cost.wall for summary in summaries)
    found = first_stage.metrics
    return [
        f"Looking at the pixels took mAP@50 from {before:.1%} to {after:.1%}: {100 * (after - before):+.1f} points.",
        f"The CLIP alone, over the whole collection: mAP@50 {found['mAP@50']:.1%}, recall@100 "
        f"{found['first-stage recall@100']:.1%}.",
        f"The evaluation took {seconds:,.1f} s; {hits:,} of {calls:,} answers came from the cache.",
    ]


def _next_steps(out: Path, summaries: Sequence[RunSummary]) -> list[str]:
    run = summaries[-1].out
    return [
        f"Runs are in {out}. Read how one query was reranked, and why one image is where it is:",
        f"  {program()} trace {shlex.quote(str(run))} {_most_improved(summaries)}",
    ]


def _most_improved(summaries: Sequence[RunSummary]) -> str:
    """The query whose ranking gained most from the first strategy to the last."""
    first, last = (_average_precisions(summary.out) for summary in (summaries[0], summaries[-1]))
    return max(first, key=lambda query_id: last[query_id] - first[query_id])


def _average_precisions(run: Path) -> dict[str, float]:
    per_query = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["per_query"]
    return {query_id: values["AP@50"] or 0.0 for query_id, values in per_query.items()}

"""What an evaluation prints: a table for people, one object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from eval.scoring import FIRST_STAGE_RECALL, HEADLINE
from eval.types import Means, RunSummary


def payload(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The runs of one benchmark as one JSON-able object. Metrics are fractions between 0 and 1, or None where no
    query could be scored; full retrieval adds the first stage's recall."""
    return {
        "benchmark": summaries[0].benchmark,
        "split": summaries[0].split,
        "runs": [
            {
                "strategy": summary.strategy,
                "metrics": dict(summary.metrics),
                "by_supercategory": {group: dict(means) for group, means in summary.by_supercategory.items()},
                "cost": asdict(summary.cost),
                "out": str(summary.out),
            }
            for summary in summaries
        ],
    }


def tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """Everything a person wants to see of the runs of one benchmark, within 80 columns."""
    groups = [group_table(summaries)] if summaries[0].by_supercategory else []
    return [quality_table(summaries), *groups, cost_table(summaries)]


def quality_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by metrics, in percent, each with its difference in points to the first run; below it, for full retrieval,
    what the first stage found."""
    first = summaries[0]
    base = {name: first.metrics[name] for name in HEADLINE}
    of = f"{first.scored} {'query' if first.scored == 1 else 'queries'}"
    table = _table(f"{first.benchmark} ({first.split}), {of}, percent", HEADLINE)
    for summary in summaries:
        table.add_row(summary.strategy, *_cells(summary.metrics, base, compare=summary is not first))
    if (recall := first.metrics.get(FIRST_STAGE_RECALL)) is not None:
        table.caption = f"{FIRST_STAGE_RECALL}: {100 * recall:.1f}"
    return table


def group_table(summaries: Sequence[RunSummary], metric: str = "mAP@50") -> Table:
    """Runs by supercategory in one metric, in percent, each with its difference in points to the first run."""
    first = summaries[0]
    table = _table(f"{metric} by supercategory, percent", first.by_supercategory)
    base = {group: means[metric] for group, means in first.by_supercategory.items()}
    for summary in summaries:
        own = {group: means[metric] for group, means in summary.by_supercategory.items()}
        table.add_row(summary.strategy, *_cells(own, base, compare=summary is not first))
    return table


def cost_table(summaries: Sequence[RunSummary]) -> Table:
    """What the runs cost; `unknown` counts calls that gave no verdict."""
    table = _table("cost", ["calls", "tokens in", "tokens out", "cached", "unknown", "seconds"])
    for summary in summaries:
        cost = summary.cost
        counts = (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.cache_hits, summary.unknown)
        table.add_row(summary.strategy, *(f"{count:,}" for count in counts), f"{cost.seconds:,.1f}")
    return table


def warnings(summaries: Sequence[RunSummary]) -> list[str]:
    """One line for each thing that a reader of the table must know."""
    lines = [
        f"{summary.strategy}: {summary.unknown:,} of {summary.cost.calls:,} calls gave no verdict "
        f"({summary.unknown / summary.cost.calls:.1%}); those images keep what their prior says. "
        f"The reasons are in {summary.out / 'results.jsonl'}; the same command asks them again"
        for summary in summaries
        if summary.unknown
    ]
    first = summaries[0]
    if left_out := first.queries - first.scored:
        lines.append(f"{left_out} of {first.queries} queries have nothing relevant to find; the means leave them out")
    return lines + sorted({flag for summary in summaries for flag in summary.flags})


def _table(title: str, columns: Iterable[str]) -> Table:
    """A plain table. Titles and headings may come from a data set, and are no markup."""
    table = Table(title=Text(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("strategy", no_wrap=True)
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def _cells(own: Means, base: Means, *, compare: bool) -> list[str]:
    """A cell for each value that `base` names: in percent, with its difference in points where they are compared."""
    return [_cell(own.get(name), reference if compare else None) for name, reference in base.items()]


def _cell(value: float | None, reference: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" {100 * (value - reference):+.1f}" if reference is not None else "")

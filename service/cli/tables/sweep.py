"""A sweep as a table, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.types import RunSummary


def table(summaries: Sequence[RunSummary]) -> Table:
    """Runs, best first, by quality in percent and by cost."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fieldscope.eval.tuning.grid import RANKED_BY

    first = summaries[0]
    metrics = (RANKED_BY, "nDCG@10", "MRR")
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.title = plain(f"{first.benchmark} ({first.split}), {first.scored} queries, by {RANKED_BY}, percent")
    made.title_justify = "left"
    made.add_column("", justify="right", no_wrap=True)
    made.add_column("strategy", overflow="fold")
    for name in (*metrics, "calls", "tokens", "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    for rank, summary in enumerate(summaries, start=1):
        values = (summary.metrics[name] for name in metrics)
        shown = ("-" if value is None else f"{100 * value:.1f}" for value in values)
        cost = summary.cost
        spent = (f"{cost.calls:,}", f"{cost.tokens:,}", f"{cost.wall:,.0f}")
        made.add_row(str(rank), plain(summary.strategy), *shown, *spent)
    return made

"""Dry runs as tables: calls, tokens and money by strategy and stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.workflows.dry_run import Outlook, payload

if TYPE_CHECKING:
    from rich.table import Table


def show_outlooks(outlooks: Sequence[Outlook], as_json: bool) -> None:
    """Print the outlooks, for people or for programs."""
    if as_json:
        show_json(payload(outlooks))
    else:
        show(_table(outlooks))


def _table(outlooks: Sequence[Outlook]) -> Table:
    """Each strategy's calls, tokens and money, and below it its stages."""
    currency = next((outlook.currency for outlook in outlooks if outlook.currency), None)
    columns = ("strategy", "", "calls", "tokens in", "tokens out", *([currency] if currency else []))
    table = new_table(*columns, title="what a run would ask")
    for outlook in outlooks:
        estimate = outlook.estimate
        counts = (estimate.calls, estimate.prompt_tokens, estimate.completion_tokens)
        money = [] if outlook.amount is None else [f"{outlook.amount:,.2f}"]
        bound = "at most" if estimate.bound else ""
        table.add_row(plain(outlook.strategy, "bold"), bound, *(f"{count:,}" for count in counts), *money)
        if estimate.pairs:
            none = [""] * (len(columns) - 3)
            table.add_row("  score, pairs", "not calls", f"{estimate.pairs:,}", *none, style="dim")
        for stage, spending in estimate.stages.items():
            model = plain(outlook.models.get(stage, ""), "dim")
            table.add_row(f"  {stage}", model, *(f"{count:,.0f}" for count in asdict(spending).values()), style="dim")
    return table

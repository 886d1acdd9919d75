"""Dry runs as tables: calls, tokens and money by strategy and stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.workflows.dry_run import Outlook, payload

if TYPE_CHECKING:
    from rich.table import Table


def tell(outlooks: Sequence[Outlook], as_json: bool) -> None:
    """Print the outlooks, for people or for programs."""
    if as_json:
        show_json(payload(outlooks))
    else:
        show(table(outlooks))


def table(outlooks: Sequence[Outlook]) -> Table:
    """Each strategy's calls, tokens and money, and below it its stages."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    price = outlooks[0].price
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title="what would be asked")
    made.title_justify = "left"
    made.add_column("strategy", overflow="fold")
    for name in ("", "calls", "tokens in", "tokens out", *([price.currency] if price else [])):
        made.add_column(plain(name), justify="right", no_wrap=True)
    for outlook in outlooks:
        told = outlook.estimate
        counts = (told.calls, told.prompt_tokens, told.completion_tokens)
        money = [] if outlook.amount is None else [f"{outlook.amount:,.2f}"]
        bound = "at most" if told.bound else ""
        made.add_row(plain(outlook.strategy, "bold"), bound, *(f"{count:,}" for count in counts), *money)
        for stage, spending in told.stages.items():
            made.add_row(f"  {stage}", "", *(f"{count:,.0f}" for count in asdict(spending).values()), style="dim")
    return made

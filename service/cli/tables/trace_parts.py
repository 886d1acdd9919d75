"""The parts that the tables of traces share."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fieldscope.service.cli.console import plain


def line(name: str, value: str, style: str = "") -> RenderableType:
    """A name and a text; further lines of the text stand below it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=9, justify="right", style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(plain(name), plain(value, style))
    return grid


def heading(title: str) -> Text:
    """A line above a table."""
    return Text(f"\n{title}", style="bold")


def number(value: float | None, digits: int = 2) -> str:
    """A number, or - where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"

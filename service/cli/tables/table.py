"""The one look of tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain

if TYPE_CHECKING:
    from rich.table import Table


def new_table(
    *columns: str, title: str = "", texts: int = 1, caption: str = "", header: bool = True, wrap_numbers: bool = True
) -> Table:
    """An empty table without frames. Its first `texts` columns are words, on the left; the others are numbers, on the
    right, which break into lines where they are too long only if `wrap_numbers`.

    Titles, headings and captions may come from a data set or a model: they are plain text, without markup.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=plain(title) if title else None,
        caption=plain(caption, "dim") if caption else None,
        box=SIMPLE_HEAD,
        show_header=header,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        caption_justify="left",
    )
    for place, column in enumerate(columns):
        if place < texts:
            table.add_column(plain(column), overflow="fold")
        else:
            table.add_column(plain(column), justify="right", overflow="fold", no_wrap=not wrap_numbers)
    return table


def pairs_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Names in bold, and what each is, without a heading."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(plain(name, "bold"), plain(text))
    return table

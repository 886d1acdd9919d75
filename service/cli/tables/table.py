"""The one look of tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain

if TYPE_CHECKING:
    from rich.table import Table


def new_table(
    *columns: str,
    texts: int = 1,
    title: str = "",
    caption: str = "",
    header: bool = True,
    edge: bool = True,
    narrow: bool = False,
) -> Table:
    """An empty table without lines between its cells. Its first `texts` columns are texts, the others numbers, on the
    right. With an `edge` a blank line stands above and below it; a `narrow` one has no space around its cells.

    Titles, headings and captions may come from a data set or a model: they are plain text, without markup.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=plain(title) if title else None,
        caption=plain(caption, "dim") if caption else None,
        box=SIMPLE_HEAD,
        padding=0 if narrow else (0, 1, 0, 0),
        pad_edge=False,
        show_header=header,
        show_edge=edge,
        title_justify="left",
        caption_justify="left",
    )
    for place, column in enumerate(columns):
        table.add_column(plain(column), justify="left" if place < texts else "right", overflow="fold")
    return table


def pairs_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Names in bold, and what each is, without a heading."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(plain(name, "bold"), plain(text))
    return table

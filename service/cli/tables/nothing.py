"""That nothing matches, in a terminal: the sentences, and the nearest images by parts that hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fieldscope.agent.trace_nothing import NearImage, Nothing

SHOWN = 5
"""How many of the nearest images are listed."""


def nothing_lines(nothing: Nothing | None) -> Iterator[RenderableType]:
    """The sentences and the nearest images; nothing where there is no such decision."""
    if nothing is None:
        return
    yield from (plain(sentence, "yellow") for sentence in nothing.sentences)
    if nothing.nearest:
        yield "Nearest by parts that hold:"
        yield _nearest_table(nothing.nearest[:SHOWN])


def _nearest_table(nearest: tuple[NearImage, ...]) -> Table:
    table = new_table("rank", "P(match)", "parts", texts=0)
    table.add_column("image", overflow="fold")
    table.add_column("missing", overflow="fold")
    for image in nearest:
        p_match = "-" if image.p_match is None else f"{image.p_match:.3f}"
        table.add_row(str(image.rank), p_match, image.parts, plain(image.image), plain(image.missing))
    return table

"""HTML for notebooks: tables and thumbnails, escaped and bounded in size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image as PILImage

from fieldscope.core.errors import FieldscopeError
from fieldscope.core.types import ImageSource

MOST_ROWS = 20
"""Rows of a table; a line below it says how many more there are."""

THUMBNAIL = 96
"""The longer side of a thumbnail in pixels."""

LONGEST = 300
"""Characters of a text in a cell."""

_CELL = "text-align:left;vertical-align:top"


class Markup(str):
    """HTML that is safe as it is."""

    __slots__ = ()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], total: int, caption: str = "") -> str:
    """The first `MOST_ROWS` rows as an HTML table. Cells are texts, which are escaped and cut, or `Markup`."""
    shown = [row for _, row in zip(range(MOST_ROWS), rows, strict=False)]
    head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in columns)
    cells = ("".join(f'<td style="{_CELL}">{_cell(cell)}</td>' for cell in row) for row in shown)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    title = f'<caption style="{_CELL}">{_cell(caption)}</caption>' if caption else ""
    more = f"<p>{total - len(shown):,} more</p>" if total > len(shown) else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def thumbnail(images: ImageSource, image_id: str) -> Markup:
    """A small JPEG inside the page; a dash for an image that can't be read any more."""
    try:
        image = images.load(image_id)
    except FieldscopeError:
        return Markup("–")
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), PILImage.Resampling.BILINEAR)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    source = base64.b64encode(data.getvalue()).decode("ascii")
    return Markup(f'<img alt="" width="{small.width}" height="{small.height}" src="data:image/jpeg;base64,{source}">')


def cut(text: str, longest: int = LONGEST) -> str:
    """A text of at most so many characters, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cell(cell: str) -> str:
    return cell if isinstance(cell, Markup) else escape(cut(cell))

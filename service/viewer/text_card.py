"""A text as a picture, for the places where a document is shown by one."""

from __future__ import annotations

from textwrap import wrap

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

_SIDE = 320
_MARGIN = 20
_SIZE = 26
_COLUMNS = 22  # characters in a line
_LINES = 9


def text_card(text: str) -> PILImage.Image:
    """The beginning of a text, dark on light, as a square RGB picture."""
    card = PILImage.new("RGB", (_SIDE, _SIDE), "#f6f4ee")
    lines = wrap(text, _COLUMNS, max_lines=_LINES, placeholder=" …") or ["(no words)"]
    font = ImageFont.load_default(_SIZE)
    ImageDraw.Draw(card).multiline_text((_MARGIN, _MARGIN), "\n".join(lines), fill="#222222", font=font, spacing=6)
    return card

"""One animal with all that belongs to it, as a picture that can be drawn at any size."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw

from fieldscope.fieldnotes.animals import BOX, animal_tile
from fieldscope.fieldnotes.props import INK, draw_post, draw_snore, item_box, item_tile
from fieldscope.fieldnotes.scene import Group

NOMINAL = 160
"""The width of an animal's box on its sheet, which has room around it for what the animal carries."""

SHEET = 2 * NOMINAL
_MIDDLE = SHEET // 2


@lru_cache(maxsize=512)
def animal_sheet(group: Group, flip: bool) -> Image.Image:
    """One animal of the group amid a transparent square of `SHEET` pixels, with its shadow, post, strokes of flight,
    item and Z; treat the picture as read-only."""
    tile = animal_tile(group.species, group.colour, group.pose)
    scale = max(BOX, tile.width, tile.height)
    width, height = tile.width * NOMINAL // scale, tile.height * NOMINAL // scale
    tile = tile.resize((width, height), Image.Resampling.BICUBIC)
    if flip:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top = _MIDDLE - width // 2, _MIDDLE - height // 2
    sheet = Image.new("RGBA", (SHEET, SHEET))
    draw = ImageDraw.Draw(sheet)
    _draw_under(draw, group.pose, width, top, top + height)
    sheet.alpha_composite(tile, (left, top))
    if group.item != "none":
        box = item_box(group.item, (left, top, left + width, top + height), flip, SHEET)
        sheet.alpha_composite(item_tile(group.item, box[2] - box[0], box[3] - box[1]), box[:2])
    if group.pose == "sleeping":
        draw_snore(draw, _MIDDLE + 14 if flip else _MIDDLE - 70, top - 6)
    return sheet


def _draw_under(draw: ImageDraw.ImageDraw, pose: str, width: int, top: int, bottom: int) -> None:
    """What lies behind the animal: its shadow, the strokes of its flight, or its post."""
    reach = width * 2 // 5
    if pose == "climbing":
        draw.ellipse((_MIDDLE - 34, bottom + 22, _MIDDLE + 34, bottom + 34), (10, 10, 30, 110))
        draw_post(draw, _MIDDLE, top - 28, bottom + 30)
    elif pose == "airborne":
        draw.ellipse((_MIDDLE - reach, bottom + 27, _MIDDLE + reach, bottom + 39), (10, 10, 30, 120))
        for x, long in ((-reach * 2 // 3, 17), (0, 21), (reach * 2 // 3, 17)):
            draw.line([(_MIDDLE + x, bottom + 1), (_MIDDLE + x, bottom + 3 + long)], INK, 10)
            draw.line([(_MIDDLE + x, bottom + 3), (_MIDDLE + x, bottom + 1 + long)], (255, 255, 255), 6)
    else:
        draw.ellipse((_MIDDLE - reach - 8, bottom - 10, _MIDDLE + reach + 8, bottom + 6), (10, 10, 30, 110))

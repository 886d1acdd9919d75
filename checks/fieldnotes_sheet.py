"""An image of FieldNotes for the README: queries, a relevant image each, and near misses that differ in one thing.

python -m checks.fieldnotes_sheet docs/fieldnotes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fieldscope.fieldnotes.queries import BenchmarkQuery, Split, load_split
from fieldscope.fieldnotes.render import render

TILE, MARGIN, CAPTION = 224, 12, 34
MISSES = 3
RIGHT, WRONG, INK, PAPER = (24, 128, 72), (150, 150, 150), (30, 30, 30), (255, 255, 255)


def draw_row(split: Split, query: BenchmarkQuery) -> Image.Image:
    """The query in words, one relevant image framed in green, and near misses framed in grey."""
    facts = len(query.spec.facts())
    hit = min(split.relevant[query.id], key=int)
    near = [i for i, scene in split.scenes.items() if query.spec.satisfied(scene) == facts - 1][:MISSES]
    width = (MISSES + 1) * (TILE + MARGIN) + MARGIN
    row = Image.new("RGB", (width, CAPTION + TILE + MARGIN), PAPER)
    pen = ImageDraw.Draw(row)
    pen.text((MARGIN, 8), query.text, fill=INK, font=ImageFont.load_default(17))
    for column, image_id in enumerate([hit, *near]):
        x = MARGIN + column * (TILE + MARGIN)
        row.paste(render(split.scenes[image_id]), (x, CAPTION))
        frame = RIGHT if image_id == hit else WRONG
        pen.rectangle((x - 3, CAPTION - 3, x + TILE + 2, CAPTION + TILE + 2), outline=frame, width=4)
    return row


def draw_sheet(split: Split, queries: list[BenchmarkQuery]) -> Image.Image:
    """Rows for the given queries, one below the other."""
    rows = [draw_row(split, query) for query in queries]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), PAPER)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw queries with a relevant image and near misses each.")
    parser.add_argument("out", type=Path, help="the PNG file to write")
    split = load_split("validation")
    options = parser.parse_args()
    picked = [query for query in split.queries if len(query.spec.facts()) >= 5][:4]
    draw_sheet(split, picked).save(options.out)


if __name__ == "__main__":
    main()

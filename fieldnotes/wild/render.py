"""From a wild scene to its photograph."""

from __future__ import annotations

from random import Random

from PIL import Image

from fieldscope.fieldnotes.habitats import paint_background
from fieldscope.fieldnotes.layout import CANVAS
from fieldscope.fieldnotes.layout import Layout as Backdrop
from fieldscope.fieldnotes.wild.animals import NOMINAL, SHEET, animal_sheet
from fieldscope.fieldnotes.wild.camera import jpeg, paint_weather, photographed
from fieldscope.fieldnotes.wild.layout import place
from fieldscope.fieldnotes.wild.plants import hide
from fieldscope.fieldnotes.wild.scene import HEIGHT, WIDTH, WildScene


def photograph(scene: WildScene) -> bytes:
    """The photograph as the bytes of a JPEG: the same for the same scene, in every process."""
    canvas, _ = draw(scene)
    return jpeg(photographed(canvas, scene.shot, scene.key() + "grain"), scene.shot.quality)


def draw(scene: WildScene) -> tuple[Image.Image, tuple[int, ...]]:
    """The scene in full light and sharp, `WIDTH` by `HEIGHT`, and how much of each animal plants hide, in percent,
    in the order of the layout's spots."""
    layout, rng = place(scene), Random(scene.key() + "plants")
    backdrop = Backdrop((), layout.horizon * CANVAS // HEIGHT, rng.randint(-7, 7), rng.randint(-5, 5))
    canvas = paint_background(scene, backdrop).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    shares = []
    for spot in layout.spots:
        group = scene.groups[spot.group]
        side = SHEET * spot.width // NOMINAL
        sheet = animal_sheet(group, spot.flip).resize((side, side), Image.Resampling.BICUBIC)
        left, top = spot.x - side // 2, spot.y - side // 2
        canvas.paste(sheet, (left, top), sheet)
        inset = (side - spot.width) // 2
        body = sheet.getchannel("A").crop((inset, inset, inset + spot.width, inset + spot.width))
        box = (left + inset, top + inset, left + inset + spot.width, top + inset + spot.width)
        percent = scene.shot.hidden[spot.group]
        shares.append(hide(canvas, body, box, scene.habitat, percent, rng) if percent else 0)
    paint_weather(canvas, scene)
    return canvas, tuple(shares)

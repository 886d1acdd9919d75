"""From a scene to its picture, and to the labels of the picture's patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

from fieldscope.fieldnotes.animals import BOX, animal_tile
from fieldscope.fieldnotes.habitats import paint_background, paint_weather
from fieldscope.fieldnotes.layout import CANVAS, Placement, place
from fieldscope.fieldnotes.props import INK, Box, draw_post, draw_snore, item_box, item_tile
from fieldscope.fieldnotes.scene import Group, Scene

# The share of a patch, of 255, that an animal or an item has to cover to own it.
BODY_SHARE = 76
ITEM_SHARE = 46


@dataclass(frozen=True)
class PatchLabels:
    """Row-major labels: `group` is -1 for background or the group's index; `item` is 1 where an item is drawn."""

    group: tuple[int, ...]
    item: tuple[int, ...]


@dataclass(frozen=True)
class Actor:
    """One animal ready to be pasted: its picture and box, and its item's picture and box."""

    group: Group
    index: int
    flip: bool
    tile: Image.Image
    box: Box
    item: Image.Image | None
    item_box: Box


def render(scene: Scene, size: int = 224) -> Image.Image:
    """Draw the scene: the same pixels for the same scene, in every process."""
    layout = place(scene)
    canvas = paint_background(scene, layout)
    actors = list(_actors(scene, layout.placements))
    # Shadows blend, so they need a drawing context of their own; posts must not cover a neighbour.
    under, over = ImageDraw.Draw(canvas, "RGBA"), ImageDraw.Draw(canvas)
    for actor in actors:
        _draw_under(under, over, actor)
    for actor in actors:
        canvas.paste(actor.tile, actor.box, actor.tile)
        if actor.item is not None:
            canvas.paste(actor.item, actor.item_box, actor.item)
        if actor.group.pose == "sleeping":
            _draw_sleep(over, actor)
    paint_weather(canvas, scene)
    picture = canvas.reduce(2)
    return picture if size == picture.width else picture.resize((size, size), Image.Resampling.BOX)


def patch_labels(scene: Scene, grid: int = 8) -> PatchLabels:
    """Which group covers each patch most (or -1), and whether an item is drawn there."""
    shares: list[list[int]] = [[0] * grid * grid for _ in scene.groups]
    items = [0] * grid * grid
    for actor in _actors(scene, place(scene).placements):
        cover = _cover(actor.tile, actor.box, grid, BODY_SHARE)
        shares[actor.index] = [max(a, b) for a, b in zip(shares[actor.index], cover, strict=True)]
        if actor.item is not None:
            item = _cover(actor.item, actor.item_box, grid, ITEM_SHARE)
            items = [max(a, int(b > 0)) for a, b in zip(items, item, strict=True)]
    group = []
    for patch in zip(*shares, strict=True):
        most = max(patch)
        group.append(patch.index(most) if most else -1)
    return PatchLabels(tuple(group), tuple(items))


def _cover(tile: Image.Image, box: Box, grid: int, least: int) -> list[int]:
    """How much of each patch the tile covers, of 255; zero below `least`, but never zero everywhere."""
    mask = Image.new("L", (CANVAS, CANVAS))
    mask.paste(tile.getchannel("A"), box)
    cover = list(mask.resize((grid, grid), Image.Resampling.BOX).tobytes())
    least = min(least, max(cover))
    return [share if share >= least else 0 for share in cover]


def _actors(scene: Scene, placements: tuple[Placement, ...]) -> Iterator[Actor]:
    for spot in placements:
        group = scene.groups[spot.group]
        tile = animal_tile(group.species, group.colour, group.pose)
        # A tilted animal can be wider than its nominal box; scale it back so that it keeps to its cell.
        scale = max(BOX, tile.width, tile.height)
        width, height = tile.width * spot.size // scale, tile.height * spot.size // scale
        tile = tile.resize((width, height), Image.Resampling.BICUBIC)
        if spot.flip:
            tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left, top = spot.x - width // 2, spot.y - height // 2
        box = (left, top, left + width, top + height)
        if group.item == "none":
            yield Actor(group, spot.group, spot.flip, tile, box, None, box)
            continue
        where = item_box(group.item, box, spot.flip, CANVAS)
        item = item_tile(group.item, where[2] - where[0], where[3] - where[1])
        yield Actor(group, spot.group, spot.flip, tile, box, item, where)


def _draw_under(under: ImageDraw.ImageDraw, over: ImageDraw.ImageDraw, actor: Actor) -> None:
    """What lies behind the animal: its shadow, the strokes of its flight, or its post."""
    left, top, right, bottom = actor.box
    middle, reach = (left + right) // 2, (right - left) * 2 // 5
    if actor.group.pose == "climbing":
        over_top, foot = max(0, top - 28), min(CANVAS - 4, bottom + 30)
        under.ellipse((middle - 34, foot - 8, middle + 34, foot + 4), (10, 10, 30, 110))
        draw_post(over, middle, over_top, foot)
    elif actor.group.pose == "airborne":
        under.ellipse((middle - reach, bottom + 27, middle + reach, bottom + 39), (10, 10, 30, 120))
        for x, long in ((middle - reach * 2 // 3, 17), (middle, 21), (middle + reach * 2 // 3, 17)):
            over.line([(x, bottom + 1), (x, bottom + 3 + long)], INK, 10)
            over.line([(x, bottom + 3), (x, bottom + 1 + long)], (255, 255, 255), 6)
    else:
        under.ellipse((middle - reach - 8, bottom - 10, middle + reach + 8, bottom + 6), (10, 10, 30, 110))


def _draw_sleep(draw: ImageDraw.ImageDraw, actor: Actor) -> None:
    """The Z z above the animal's back, where no item is."""
    left, top, right, _ = actor.box
    middle = (left + right) // 2
    x = middle + 14 if actor.flip else middle - 70
    draw_snore(draw, min(max(x, 8), CANVAS - 62), max(42, top - 6))

"""The pen that all pictures are drawn with, and the things that animals carry: integer coordinates only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Paint = tuple[int, ...]
Point = tuple[int, int]
Box = tuple[int, int, int, int]

PALETTE: dict[str, Colour] = {
    "red": (222, 30, 38),
    "orange": (255, 138, 10),
    "yellow": (255, 226, 30),
    "green": (40, 186, 62),
    "blue": (32, 104, 240),
    "purple": (150, 48, 206),
    "black": (34, 32, 40),
    "white": (253, 253, 251),
}
INK: Colour = (42, 32, 46)
PALE: Colour = (226, 228, 238)
CREAM: Colour = (255, 246, 224)
TAN: Colour = (206, 168, 104)


def mix(one: Colour, other: Colour, percent: int) -> Colour:
    """`percent` of the other colour in the first."""
    red, green, blue = ((a * (100 - percent) + b * percent) // 100 for a, b in zip(one, other, strict=True))
    return red, green, blue


def smooth(points: Sequence[Point], closed: bool, rounds: int = 3) -> list[Point]:
    """Chaikin's corner cutting in whole numbers: a soft curve that is the same on every machine."""
    # Sixteenths keep the rounding errors of the three rounds below a pixel.
    current = [(16 * x, 16 * y) for x, y in points]
    for _ in range(rounds):
        cut: list[Point] = [] if closed else [current[0]]
        pairs = zip(current, current[1:] + current[:1] if closed else current[1:], strict=False)
        for (ax, ay), (bx, by) in pairs:
            cut += [((3 * ax + bx) // 4, (3 * ay + by) // 4), ((ax + 3 * bx) // 4, (ay + 3 * by) // 4)]
        current = cut if closed else [*cut, current[-1]]
    return [((x + 8) // 16, (y + 8) // 16) for x, y in current]


class Pen:
    """Draws outlined shapes in one animal's colours; `fill=None` means the animal's own colour."""

    def __init__(self, image: Image.Image, colour: str = "white", asleep: bool = False, width: int = 6) -> None:
        self.draw = ImageDraw.Draw(image)
        self.asleep = asleep
        self.width = width
        self.fill = PALETTE[colour]
        # A dark line would vanish on a black animal, and a black animal in a dark wood.
        self.ink = PALE if colour == "black" else INK
        self.shade = (86, 84, 98) if colour == "black" else mix(self.fill, (40, 20, 50), 24)
        self.light = (112, 110, 126) if colour == "black" else mix(self.fill, (255, 255, 255), 45)

    def blob(self, box: Box, fill: Paint | None = None) -> None:
        """An ellipse."""
        self.draw.ellipse(box, fill or self.fill, self.ink, self.width)

    def spot(self, x: int, y: int, radius: int, fill: Paint | None = None) -> None:
        """A disc without an outline."""
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill or self.shade)

    def shape(self, points: Sequence[Point], fill: Paint | None = None, soft: bool = True) -> None:
        """A closed shape, with rounded corners unless `soft` is off."""
        outline = smooth(points, closed=True) if soft else list(points)
        self.draw.polygon(outline, fill or self.fill)
        self.draw.line([*outline, *outline[:2]], self.ink, self.width, "curve")

    def stroke(self, points: Sequence[Point], width: int, fill: Paint | None = None) -> None:
        """A thick outlined line with round ends: a leg, an arm, a neck."""
        path = smooth(points, closed=False)
        for thickness, paint in ((width + 2 * self.width, self.ink), (width, fill or self.fill)):
            self.draw.line(path, paint, thickness, "curve")
            for x, y in (path[0], path[-1]):
                self.spot(x, y, thickness // 2, paint)

    def line(self, points: Sequence[Point], width: int = 5, fill: Paint | None = None) -> None:
        """A thin curved line in ink."""
        self.draw.line(smooth(points, closed=False), fill or self.ink, width, "curve")

    def eye(self, x: int, y: int, radius: int) -> None:
        """An open eye, or a line when asleep."""
        if self.asleep:
            self.line([(x - radius, y), (x, y + radius), (x + radius, y)], 6)
            return
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), (255, 255, 255), INK, 3)
        self.spot(x + 1, y + 1, radius * 6 // 10, (20, 16, 24))
        self.spot(x - radius // 4, y - radius // 4, max(2, radius // 5), (255, 255, 255))


def _litter(pen: Pen, width: int, height: int) -> None:
    body = (176, 238, 248, 205)
    pen.ink = (24, 84, 108)
    pen.draw.rounded_rectangle((2, 22, width - 3, height - 3), 9, body, pen.ink, 4)
    middle = width // 2
    pen.draw.polygon([(middle - 7, 12), (middle + 7, 12), (width - 6, 27), (5, 27)], body)
    pen.draw.line([(middle - 7, 12), (4, 28)], pen.ink, 4)
    pen.draw.line([(middle + 7, 12), (width - 5, 28)], pen.ink, 4)
    pen.draw.rectangle((middle - 10, 0, middle + 10, 12), (236, 252, 255), pen.ink, 4)
    pen.draw.rectangle((5, height // 2, width - 6, height // 2 + 11), (250, 255, 255, 235))
    pen.draw.line([(10, 32), (10, height - 12)], (255, 255, 255), 4)


def _tag(pen: Pen, width: int, height: int) -> None:
    pen.draw.rectangle((0, 0, width - 1, height - 1), (255, 255, 255), INK, 5)
    top, bottom = 10, height - 11
    pen.draw.line([(14, top), (14, bottom)], INK, 6)
    pen.draw.line([(23, top), (36, top), (36, height // 2), (23, height // 2), (23, bottom), (37, bottom)], INK, 4)


def _leaf(pen: Pen, width: int, height: int) -> None:
    pen.width = 4
    pen.ink = (14, 66, 26)
    edge = [(2, height - 4), (width // 5, 2), (width * 3 // 5, 0), (width - 3, height // 3)]
    edge += [(width * 4 // 5, height - 3), (width * 2 // 5, height)]
    pen.shape(edge, (134, 232, 62))
    pen.line([(3, height - 6), (width // 2, height // 2), (width - 12, height // 3)], 4)
    for x in (width * 3 // 8, width * 5 // 8):
        pen.line([(x, height * 6 // 10), (x + 8, height // 5)], 3)
        pen.line([(x, height * 6 // 10), (x + 12, height * 8 // 10)], 3)


def _nest(pen: Pen, width: int, height: int) -> None:
    brown, straw = (132, 84, 44), (206, 160, 98)
    pen.width = 3
    pen.draw.ellipse((0, 14, width - 1, 38), (84, 50, 28), INK, 3)
    for x in (width // 2 - 25, width // 2 + 7, width // 2 - 9):
        pen.draw.ellipse((x, 0, x + 18, 26), (244, 240, 222), INK, 3)
    pen.draw.chord((0, 26 - (height - 27), width - 1, height - 1), 0, 180, brown, INK, 4)
    for y in (33, 41):
        pen.line([(7 + (y - 33) // 2, y), (width // 2, y + 6), (width - 8 - (y - 33) // 2, y)], 3, straw)
    for x in range(16, width - 14, 11):
        pen.draw.line([(x, 30), (x + 5, height - 11)], straw, 2)


def _net(pen: Pen, width: int, height: int) -> None:
    for thickness, paint in ((7, (58, 44, 34)), (3, (250, 236, 196))):
        for offset in range(-height, width, 36):
            pen.draw.line([(offset, 0), (offset + height, height)], paint, thickness)
            pen.draw.line([(offset + height, 0), (offset, height)], paint, thickness)


ITEM_PAINTERS: dict[str, Callable[[Pen, int, int], None]] = {
    "litter": _litter,
    "tag": _tag,
    "leaf": _leaf,
    "nest": _nest,
    "net": _net,
}
ITEM_SIZES: dict[str, Point] = {"litter": (40, 74), "tag": (48, 38), "leaf": (84, 46), "nest": (74, 54)}


@lru_cache(maxsize=64)
def item_tile(item: str, width: int, height: int) -> Image.Image:
    """The item on a transparent tile of that size; a net is cut to a rounded sheet with a rope round it."""
    tile = Image.new("RGBA", (width, height))
    ITEM_PAINTERS[item](Pen(tile), width, height)
    if item != "net":
        return tile
    sheet = Image.new("L", (width, height))
    corner = min(width, height) // 3
    ImageDraw.Draw(sheet).rounded_rectangle((0, 0, width - 1, height - 1), corner, 255)
    net = Image.composite(tile, Image.new("RGBA", (width, height)), sheet)
    rim = ImageDraw.Draw(net)
    rim.rounded_rectangle((0, 0, width - 1, height - 1), corner, None, (58, 44, 34), 8)
    rim.rounded_rectangle((2, 2, width - 3, height - 3), corner - 2, None, (250, 236, 196), 4)
    return net


def item_box(item: str, body: Box, flip: bool, canvas: int) -> Box:
    """Where the item of an animal with that body box goes, kept inside the canvas."""
    left, top, right, bottom = body
    forward = -1 if flip else 1
    middle = (left + right) // 2
    if item == "net":
        # The upper part stays free: a head is what an animal is recognised by.
        start = min(top + (bottom - top) * 46 // 100, bottom - 46)
        return max(0, left - 4), start, min(canvas, right + 4), min(canvas, bottom + 6)
    width, height = ITEM_SIZES[item]
    reach = max(24, (right - left) * 36 // 100)
    x, y = {
        "litter": (middle + forward * reach, bottom - height // 2 + 4),
        "tag": (middle - forward * (right - left) // 8, top + (bottom - top) * 50 // 100 + height // 2),
        "leaf": (middle + forward * (reach * 3 // 4), top - 10),
        "nest": (middle + forward * reach, bottom - height // 2 + 12),
    }[item]
    x = min(max(x - width // 2, 0), canvas - width)
    y = min(max(y - height // 2, 0), canvas - height)
    return x, y, x + width, y + height


def draw_snore(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A big and a small Z whose feet stand on `y`, from `x` rightwards."""
    for left, base, height in ((x, y, 32), (x + 34, y - 14, 20)):
        wide = height * 7 // 8
        path = [(left, base - height), (left + wide, base - height), (left, base), (left + wide, base)]
        for paint, extra in ((INK, 6), ((255, 255, 255), 0)):
            thickness = height // 6 + extra + 1
            draw.line(path, paint, thickness, "curve")
            for px, py in (path[0], path[-1]):
                radius = thickness // 2
                draw.ellipse((px - radius, py - radius, px + radius, py + radius), paint)


def draw_post(draw: ImageDraw.ImageDraw, x: int, top: int, bottom: int) -> None:
    """A thick brown post, standing from `top` down to `bottom`."""
    draw.rounded_rectangle((x - 19, top, x + 19, bottom), 6, (158, 100, 50), INK, 5)
    draw.line([(x - 8, top + 9), (x - 8, bottom - 9)], (122, 74, 36), 4)
    draw.line([(x + 5, top + 14), (x + 5, bottom - 14)], (184, 126, 72), 4)

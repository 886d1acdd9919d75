"""The fourteen animals, each drawn in a 200x200 box, facing right, and put into its pose."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from PIL import Image

from fieldscope.fieldnotes.props import CREAM, INK, TAN, Pen, Point

BOX = 200
UPRIGHT = frozenset({"crab", "frog", "butterfly", "owl", "starfish", "octopus"})


def _mirror(points: list[Point]) -> list[Point]:
    return [(BOX - x, y) for x, y in points]


def _crab(pen: Pen, spread: bool) -> None:
    hind: list[Point] = [(75, 155), (56, 168), (54, 186)]
    for leg in ([(60, 130), (26, 128), (14, 158)], [(65, 145), (34, 150), (28, 180)], hind):
        for path in (leg, _mirror(leg)):
            pen.stroke(path, 9)
    arm: list[Point] = [(62, 118), (24, 104), (36, 62)]
    pen.stroke(arm, 16)
    pen.stroke(_mirror(arm), 16)
    for box in ((2, 4, 70, 72), (130, 4, 198, 72)):
        pen.draw.pieslice(box, 300, 240, pen.fill, pen.ink, pen.width)
    for x in (82, 118):
        pen.stroke([(x, 105), (x, 78)], 7)
    pen.blob((40, 92, 160, 172))
    for x in (82, 118):
        pen.eye(x, 74, 13)
    pen.line([(78, 140), (100, 153), (122, 140)], 6)
    for x in (62, 138):
        pen.spot(x, 122, 7)


def _fish(pen: Pen, spread: bool) -> None:
    pen.shape([(70, 105), (4, 40), (20, 105), (4, 170), (70, 105)], soft=False)
    pen.shape([(78, 62), (100, 14), (140, 26), (150, 66)], pen.shade)
    pen.shape([(90, 145), (96, 184), (126, 172), (130, 145)], pen.shade)
    pen.blob((42, 48, 198, 162))
    for x in (78, 102):
        pen.draw.arc((x - 28, 66, x, 144), 300, 60, pen.shade, 8)
    pen.draw.arc((104, 60, 142, 150), 290, 70, pen.ink, 5)
    pen.shape([(108, 108), (82, 96), (80, 134)], pen.shade)
    pen.eye(164, 92, 14)
    pen.line([(194, 118), (182, 126), (172, 122)], 5)


def _turtle(pen: Pen, spread: bool) -> None:
    pen.shape([(30, 130), (2, 146), (30, 146)], pen.light, soft=False)
    pen.stroke([(135, 130), (158, 120), (164, 100)], 22, pen.light)
    pen.blob((140, 64, 199, 116), pen.light)
    for x in (34, 106):
        pen.draw.rounded_rectangle((x, 125, x + 36, 174), 12, pen.light, pen.ink, pen.width)
    pen.draw.chord((12, 36, 158, 256), 180, 360, pen.fill, pen.ink, pen.width)
    pen.draw.rounded_rectangle((6, 134, 164, 154), 10, pen.fill, pen.ink, pen.width)
    for path in ([(62, 60), (54, 134)], [(108, 60), (116, 134)], [(28, 100), (142, 100)]):
        pen.line(path, 6, pen.shade)
    pen.eye(178, 84, 11)
    pen.line([(192, 101), (176, 104)], 4)


def _snake(pen: Pen, spread: bool) -> None:
    pen.line([(190, 78), (199, 74)], 5, INK if pen.ink == INK else CREAM)
    path = [(26, 158), (30, 54), (66, 54), (74, 168), (110, 168), (116, 58), (150, 66)]
    pen.stroke(path, 28)
    for x, y in ((34, 104), (56, 80), (71, 128), (92, 156), (110, 122)):
        pen.spot(x, y, 9)
    pen.blob((128, 40, 194, 94))
    pen.eye(164, 60, 12)
    pen.line([(188, 76), (168, 82)], 4)


def _frog(pen: Pen, spread: bool) -> None:
    for left in (2, 138):
        pen.blob((left, 104, left + 60, 180))
    for left in (40, 116):
        pen.blob((left, 28, left + 44, 84))
    pen.blob((22, 58, 178, 178))
    pen.draw.ellipse((58, 126, 142, 172), pen.light)
    for x in (62, 138):
        pen.spot(x, 62, 20, pen.fill)
        pen.eye(x, 54, 17)
    pen.line([(44, 96), (70, 122), (130, 122), (156, 96)], 7)
    for x in (14, 132):
        pen.shape([(x, 190), (x + 8, 168), (x + 46, 168), (x + 54, 190)])


def _butterfly(pen: Pen, spread: bool) -> None:
    upper: list[Point] = [(100, 100), (78, 30), (22, 4), (0, 40), (14, 100), (60, 112)]
    lower: list[Point] = [(100, 104), (40, 104), (14, 136), (34, 186), (78, 178), (98, 140)]
    if spread:
        upper = [(100, 112), (96, 50), (70, 6), (16, 4), (12, 58), (46, 104)]
        lower = [(100, 112), (48, 100), (8, 108), (16, 152), (60, 166), (98, 136)]
    for wing in (lower, _mirror(lower), upper, _mirror(upper)):
        pen.shape(wing)
    for x, y, radius in ((46, 50, 15), (52, 142, 11)):
        pen.spot(x, y, radius, pen.light)
        pen.spot(BOX - x, y, radius, pen.light)
    pen.line([(96, 62), (90, 34), (72, 20)], 5)
    pen.line([(104, 62), (110, 34), (128, 20)], 5)
    pen.stroke([(100, 90), (100, 168)], 14, pen.shade)
    pen.blob((80, 54, 120, 96), pen.shade)
    pen.eye(91, 74, 8)
    pen.eye(109, 74, 8)


def _beetle(pen: Pen, spread: bool) -> None:
    for leg in ([(62, 80), (44, 42), (22, 34)], [(90, 70), (92, 34), (78, 16)], [(120, 76), (142, 42), (160, 34)]):
        for path in (leg, [(x, BOX - y) for x, y in leg]):
            pen.line(path, 11)
    for feeler in ([(170, 84), (186, 68), (199, 70)], [(170, 116), (186, 132), (199, 130)]):
        pen.line(feeler, 5)
    pen.blob((136, 66, 190, 134), pen.shade)
    if spread:
        wing: list[Point] = [(132, 96), (96, 24), (30, 2), (14, 40), (60, 92)]
        pen.shape(wing, pen.light)
        pen.shape([(x, BOX - y) for x, y in wing], pen.light)
        pen.blob((30, 70, 146, 130))
        pen.shape([(142, 90), (132, 26), (86, 4), (78, 40), (100, 84)])
        pen.shape([(142, 110), (132, 174), (86, 196), (78, 160), (100, 116)])
    else:
        pen.blob((16, 48, 156, 152))
        pen.draw.line([(18, 100), (152, 100)], pen.ink, 7)
        for x, y in ((56, 76), (56, 124), (104, 74), (104, 126)):
            pen.spot(x, y, 10)
    pen.eye(172, 84, 10)
    pen.eye(172, 116, 10)


def _snail(pen: Pen, spread: bool) -> None:
    for x in (158, 184):
        pen.stroke([(172, 104), (x, 62)], 6, pen.light)
    body: list[Point] = [(2, 182), (24, 156), (120, 146), (146, 92), (180, 82), (199, 116), (188, 182), (100, 184)]
    pen.shape(body, pen.light)
    pen.blob((20, 22, 146, 164))
    # The spiral is a chain of half circles, each drawn round the end of the one before.
    for box, start, end in (
        ((42, 44, 128, 144), 180, 360),
        ((58, 50, 128, 140), 0, 180),
        ((58, 64, 110, 124), 180, 360),
        ((74, 72, 110, 116), 0, 180),
        ((74, 84, 94, 106), 180, 360),
    ):
        pen.draw.arc(box, start, end, pen.ink, 8)
    pen.eye(157, 56, 11)
    pen.eye(186, 56, 11)
    pen.line([(192, 132), (176, 136)], 4)


def _owl(pen: Pen, spread: bool) -> None:
    wing: list[Point] = [(58, 86), (26, 110), (34, 168), (64, 160)]
    if spread:
        wing = [(74, 84), (34, 24), (6, 28), (4, 104), (30, 134), (74, 138)]
        pen.shape(wing)
        pen.shape(_mirror(wing))
    ear: list[Point] = [(58, 62), (46, 6), (92, 34)]
    pen.shape(ear, soft=False)
    pen.shape(_mirror(ear), soft=False)
    pen.blob((44, 22, 156, 192))
    if not spread:
        pen.shape(wing, pen.shade)
        pen.shape(_mirror(wing), pen.shade)
    for x, y in ((84, 134), (116, 134), (100, 150), (84, 166), (116, 166)):
        pen.draw.arc((x - 9, y - 12, x + 9, y + 6), 0, 180, pen.shade, 6)
    for x in (76, 124):
        pen.spot(x, 76, 29, pen.light)
        pen.eye(x, 76, 24)
    pen.shape([(90, 92), (110, 92), (100, 116)], TAN, soft=False)
    for x in (78, 108):
        pen.draw.rounded_rectangle((x, 182, x + 16, 198), 6, TAN, pen.ink, 4)


def _duck(pen: Pen, spread: bool) -> None:
    if spread:
        pen.shape([(84, 112), (62, 34), (78, 6), (106, 36), (112, 110)], pen.shade)
    for x in (74, 102):
        pen.line([(x, 160), (x, 188), (x + 16, 188)], 8, TAN)
    pen.shape([(150, 42), (182, 44), (199, 58), (186, 70), (150, 68)], TAN)
    pen.shape([(28, 116), (4, 76), (54, 100), (112, 104), (118, 60), (162, 60), (166, 130), (140, 176), (60, 178)])
    pen.blob((106, 12, 168, 78))
    if spread:
        pen.shape([(60, 134), (2, 84), (6, 14), (50, 22), (112, 130)])
    else:
        pen.shape([(50, 116), (116, 112), (120, 142), (84, 158), (40, 140)], pen.shade)
    pen.eye(146, 38, 12)
    pen.line([(164, 60), (184, 60)], 4, INK)


def _fox(pen: Pen, spread: bool) -> None:
    pen.shape([(62, 140), (22, 138), (4, 84), (18, 16), (46, 40), (42, 84), (70, 100)])
    pen.shape([(12, 64), (18, 18), (44, 40), (42, 66), (24, 58)], pen.light)
    for x in (64, 82, 118, 136):
        pen.stroke([(x, 140), (x, 184)], 11, pen.shade if x in (82, 118) else None)
    pen.blob((48, 92, 156, 158))
    for ear in ([(116, 66), (108, 8), (146, 46)], [(144, 52), (168, 8), (176, 66)]):
        pen.shape(ear, soft=False)
    pen.shape([(106, 76), (140, 36), (178, 62), (199, 104), (190, 116), (150, 124), (112, 112)])
    pen.shape([(150, 112), (172, 92), (198, 104), (186, 116), (160, 122)], pen.light)
    pen.spot(193, 104, 8, INK)
    pen.eye(156, 78, 11)


def _rabbit(pen: Pen, spread: bool) -> None:
    for ear in ([(112, 82), (90, 6), (120, 2), (142, 74)], [(138, 78), (142, 2), (174, 6), (166, 82)]):
        pen.shape(ear)
    pen.line([(116, 24), (128, 66)], 9, pen.light)
    pen.line([(156, 24), (150, 66)], 9, pen.light)
    pen.blob((12, 124, 58, 170), pen.light)
    pen.blob((30, 88, 148, 186))
    pen.blob((104, 62, 184, 132))
    pen.draw.arc((46, 112, 112, 184), 180, 320, pen.shade, 7)
    pen.draw.rounded_rectangle((50, 172, 112, 194), 10, pen.fill, pen.ink, pen.width)
    pen.draw.rounded_rectangle((118, 164, 150, 194), 10, pen.fill, pen.ink, pen.width)
    pen.eye(154, 88, 12)
    pen.spot(180, 96, 6, INK)
    pen.line([(178, 106), (170, 114), (160, 112)], 4)


def _starfish(pen: Pen, spread: bool) -> None:
    star: list[Point] = [(90, 4), (110, 4), (130, 66), (196, 66), (199, 84), (148, 124), (168, 186), (154, 198)]
    star += [(100, 160), (46, 198), (32, 186), (52, 124), (1, 84), (4, 66), (70, 66)]
    pen.shape(star)
    for x, y in ((100, 34), (100, 56), (166, 84), (144, 156), (56, 156), (34, 84)):
        pen.spot(x, y, 8)
    pen.eye(84, 94, 13)
    pen.eye(116, 94, 13)
    pen.line([(84, 120), (100, 132), (116, 120)], 6)


def _octopus(pen: Pen, spread: bool) -> None:
    for arm in (
        [(76, 110), (50, 150), (18, 138), (18, 108)],
        [(84, 118), (66, 174), (28, 182), (20, 162)],
        [(92, 120), (94, 182), (68, 188), (54, 180)],
    ):
        pen.stroke(arm, 17)
        pen.stroke(_mirror(arm), 17)
    pen.blob((42, 2, 158, 128))
    pen.spot(100, 118, 28, pen.fill)
    for x, y, radius in ((72, 34, 9), (96, 22, 7), (122, 32, 10)):
        pen.spot(x, y, radius)
    pen.eye(78, 74, 18)
    pen.eye(122, 74, 18)
    pen.line([(86, 106), (100, 114), (114, 106)], 6)


PAINTERS: dict[str, Callable[[Pen, bool], None]] = {
    "crab": _crab,
    "fish": _fish,
    "turtle": _turtle,
    "snake": _snake,
    "frog": _frog,
    "butterfly": _butterfly,
    "beetle": _beetle,
    "snail": _snail,
    "owl": _owl,
    "duck": _duck,
    "fox": _fox,
    "rabbit": _rabbit,
    "starfish": _starfish,
    "octopus": _octopus,
}


@lru_cache(maxsize=448)
def animal_tile(species: str, colour: str, pose: str) -> Image.Image:
    """The animal in its pose, facing right, cut to its own outline; treat the picture as read-only."""
    sheet = Image.new("RGBA", (BOX, BOX))
    PAINTERS[species](Pen(sheet, colour, asleep=pose == "sleeping"), pose == "airborne")
    if pose == "airborne":
        sheet = sheet.rotate(14, Image.Resampling.BICUBIC, expand=True)
    elif pose == "climbing":
        sheet = sheet.rotate(24 if species in UPRIGHT else 80, Image.Resampling.BICUBIC, expand=True)
    tile = sheet.crop(sheet.getbbox())
    if pose == "sleeping":
        # Narrow animals spread a little as they flatten, or nothing of them would be left to recognise.
        wide = min(BOX, tile.width * 5 // 4)
        tile = tile.resize((wide, tile.height * 65 // 100), Image.Resampling.BICUBIC)
    return tile

"""Backgrounds: eight habitats and four weathers, kept calm and pale or dull so that animals stand out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random

from PIL import Image, ImageDraw

from fieldscope.fieldnotes.layout import CANVAS, Layout
from fieldscope.fieldnotes.props import Colour, mix, smooth
from fieldscope.fieldnotes.scene import Scene

SKIES: dict[str, tuple[Colour, Colour]] = {
    "clear": ((128, 196, 236), (214, 238, 246)),
    "rain": ((120, 130, 142), (172, 180, 188)),
    "fog": ((196, 204, 208), (222, 226, 228)),
    "night": ((58, 70, 128), (120, 128, 170)),
}
# How much of red, green and blue a weather leaves of the background, in percent.
TINTS: dict[str, Colour] = {"clear": (100, 100, 100), "rain": (74, 77, 82), "fog": (94, 95, 96), "night": (36, 42, 66)}
GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "forest": ((112, 136, 92), (84, 108, 70)),
    "beach": ((240, 226, 190), (230, 212, 172)),
    "desert": ((226, 190, 148), (214, 172, 128)),
    "snow": ((226, 236, 246), (242, 246, 250)),
    "meadow": ((178, 206, 128), (150, 186, 106)),
    "pond": ((134, 188, 196), (88, 148, 166)),
    "reef": ((62, 136, 172), (22, 66, 110)),
    "street": ((148, 148, 152), (122, 122, 128)),
}

# A crescent round (0, 0).
MOON = ((14, -30), (-14, -34), (-34, 0), (-14, 34), (14, 30), (18, 22), (-8, 16), (-8, -16), (18, -22))


@lru_cache(maxsize=256)
def _gradient(top: Colour, bottom: Colour, height: int) -> Image.Image:
    strip = Image.new("RGB", (1, height))
    strip.putdata([mix(top, bottom, 100 * y // height) for y in range(height)])
    return strip.resize((CANVAS, height), Image.Resampling.NEAREST)


def _spread(rng: Random, count: int, jitter: int) -> list[int]:
    """`count` positions over the width, one per equal share, each moved a little."""
    step = CANVAS // count
    return [step // 2 + i * step + rng.randint(-jitter, jitter) for i in range(count)]


def _forest(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    for x in _spread(rng, 9, 16):
        reach = rng.randint(40, 62)
        draw.ellipse((x - reach, -60 - reach, x + reach, reach // 2), (58, 96, 62))
    draw.rectangle((0, horizon - 30, CANVAS, horizon), (70, 102, 68))
    for x in _spread(rng, 7, 18):
        wide, foot = rng.randint(8, 14), horizon + rng.randint(2, 14)
        draw.polygon([(x - wide, 0), (x + wide, 0), (x + wide + 5, foot), (x - wide - 5, foot)], (66, 50, 46))
        draw.line([(x - wide // 2, 12), (x - wide // 2, foot - 8)], (84, 66, 58), 4)
    for x in _spread(rng, 6, 30):
        y = rng.randint(horizon + 40, CANVAS - 12)
        for lean in (-12, 0, 12):
            draw.line([(x, y), (x + lean, y - 18)], (72, 98, 62), 4)


def _beach(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    shore = horizon + rng.randint(38, 56)
    draw.rectangle((0, horizon, CANVAS, shore), (78, 164, 190))
    for x in _spread(rng, 6, 20):
        y = rng.randint(horizon + 8, shore - 16)
        draw.line([(x - 24, y), (x + 24, y)], (150, 208, 220), 3)
    for x in range(0, CANVAS + 40, 56):
        draw.ellipse((x - 40, shore - 10, x + 40, shore + 10), (238, 246, 244))
        draw.ellipse((x - 40, shore - 2, x + 40, shore + 18), (234, 220, 184))
    for x in _spread(rng, 12, 16):
        y = rng.randint(shore + 24, CANVAS - 8)
        draw.ellipse((x - 4, y - 2, x + 4, y + 2), (208, 188, 146))
    for x in (rng.randint(16, 60), rng.randint(390, 430)):
        y = rng.randint(CANVAS - 30, CANVAS - 10)
        draw.pieslice((x - 14, y - 14, x + 14, y + 14), 205, 335, (246, 226, 214), (176, 146, 130), 2)


def _desert(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    for x in _spread(rng, 3, 50):
        reach = rng.randint(110, 170)
        draw.ellipse((x - reach, horizon - 34, x + reach, horizon + 60), (216, 176, 132))
    draw.ellipse((-160, horizon + 4, CANVAS + 160, horizon + 140), (226, 190, 148))
    for x in _spread(rng, 6, 26):
        y = rng.randint(horizon + 40, CANVAS - 20)
        draw.arc((x - 50, y - 8, x + 50, y + 14), 200, 340, (200, 160, 116), 3)
    for x in (rng.randint(20, 110), rng.randint(330, 428)):
        foot, paint = horizon + rng.randint(8, 30), (92, 122, 88)
        draw.rounded_rectangle((x - 9, foot - 84, x + 9, foot), 9, paint)
        for side, low in ((-1, 34), (1, 48)):
            arm = x + side * 24
            draw.line([(x, foot - low), (arm, foot - low), (arm, foot - low - 24)], paint, 10, "curve")


def _snow(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    for x in _spread(rng, 3, 40):
        draw.ellipse((x - 150, horizon - 24, x + 150, horizon + 60), (232, 240, 248))
    for x in _spread(rng, 7, 18):
        foot, tall = horizon + rng.randint(4, 20), rng.randint(64, 96)
        draw.rectangle((x - 4, foot - 8, x + 4, foot), (92, 76, 68))
        for tier in range(3):
            top, wide = foot - tall + tier * tall // 4, 14 + 7 * tier
            base = top + tall // 3 + 6
            draw.polygon([(x, top), (x - wide, base), (x + wide, base)], (74, 112, 102))
            cap = [(x, top), (x - wide // 2, top + tall // 6), (x + wide // 2, top + tall // 6)]
            draw.polygon(cap, (246, 250, 252))
    for x in _spread(rng, 5, 30):
        y = rng.randint(horizon + 50, CANVAS - 16)
        draw.arc((x - 44, y - 6, x + 44, y + 10), 190, 350, (206, 218, 232), 4)


def _meadow(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    for x in _spread(rng, 2, 60):
        draw.ellipse((x - 200, horizon - 30, x + 200, horizon + 90), (166, 200, 128))
    for x in _spread(rng, 16, 12):
        y = rng.randint(horizon + 14, CANVAS - 8)
        for lean in (-6, 0, 6):
            draw.line([(x, y), (x + lean, y - 12)], (126, 164, 86), 3)
    for x in _spread(rng, 20, 10):
        y = rng.randint(horizon + 10, CANVAS - 10)
        paint = rng.choice(((250, 246, 236), (244, 206, 214), (246, 234, 170)))
        for dx, dy in ((-4, 0), (4, 0), (0, -4), (0, 4)):
            draw.ellipse((x + dx - 2, y + dy - 2, x + dx + 2, y + dy + 2), paint)


def _pond(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    draw.ellipse((-80, horizon - 34, CANVAS + 80, horizon + 34), (122, 160, 108))
    draw.rectangle((0, horizon + 14, CANVAS, horizon + 60), (134, 188, 196))
    for x in _spread(rng, 9, 16):
        y = rng.randint(horizon + 30, CANVAS - 16)
        draw.line([(x - 26, y), (x + 26, y)], (164, 208, 212), 3)
    for x in _spread(rng, 6, 30):
        y, reach = rng.randint(horizon + 40, CANVAS - 14), rng.randint(18, 26)
        draw.pieslice((x - reach, y - 8, x + reach, y + 8), 330, 290, (88, 134, 104), (66, 106, 84), 2)
    for edge in (rng.randint(0, 16), rng.randint(CANVAS - 60, CANVAS - 44)):
        for i in range(4):
            x, foot = edge + 14 * i, horizon + 44 + rng.randint(0, 24)
            tip = foot - rng.randint(80, 120)
            draw.line([(x, foot), (x + 3, tip)], (86, 122, 76), 4)
            draw.rounded_rectangle((x, tip - 10, x + 8, tip + 16), 4, (112, 80, 56))


def _reef(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    for x in range(0, CANVAS + 40, 40):
        draw.arc((x - 20, horizon - 7, x + 20, horizon + 9), 0, 180, (196, 228, 238), 4)
    for x in _spread(rng, 3, 40):
        draw.polygon([(x, horizon + 8), (x + 22, horizon + 8), (x - 20, 300), (x - 70, 300)], (66, 138, 172))
    draw.ellipse((-90, CANVAS - 34, CANVAS + 90, CANVAS + 60), (150, 158, 148))
    for x in _spread(rng, 6, 20):
        paint = rng.choice(((146, 108, 128), (126, 112, 146), (142, 124, 114)))
        foot, tall = CANVAS - rng.randint(2, 16), rng.randint(34, 58)
        for lean in (-22, -8, 8, 22):
            tip = (x + lean, foot - tall + abs(lean))
            draw.line([(x, foot), (x + lean // 2, foot - tall // 2), tip], paint, 8, "curve")
            draw.ellipse((tip[0] - 5, tip[1] - 5, tip[0] + 5, tip[1] + 5), paint)
    for x in _spread(rng, 8, 20):
        y, radius = rng.randint(horizon + 30, CANVAS - 70), rng.randint(4, 7)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), None, (122, 178, 204), 2)


def _street(draw: ImageDraw.ImageDraw, rng: Random, horizon: int) -> None:
    left = -rng.randint(0, 40)
    while left < CANVAS:
        wide, top = rng.randint(64, 100), rng.randint(14, max(20, horizon - 84))
        wall = rng.choice(((196, 176, 160), (176, 160, 156), (204, 194, 176), (164, 170, 178)))
        draw.rectangle((left, top, left + wide, horizon), wall, (128, 118, 116), 2)
        for x in range(left + 12, left + wide - 18, 26):
            for y in range(top + 12, horizon - 26, 32):
                draw.rectangle((x, y, x + 14, y + 18), (112, 130, 146), (228, 224, 216), 2)
        left += wide
    draw.rectangle((0, horizon, CANVAS, horizon + 22), (184, 180, 174))
    draw.rectangle((0, horizon + 22, CANVAS, horizon + 28), (112, 110, 112))
    lane, start = horizon + rng.randint(110, 170), -rng.randint(0, 70)
    for x in range(start, CANVAS, 96):
        draw.polygon([(x + 6, lane), (x + 52, lane), (x + 46, lane + 10), (x, lane + 10)], (220, 220, 214))
    for x in _spread(rng, 7, 26):
        y = rng.randint(horizon + 40, CANVAS - 10)
        draw.line([(x - 12, y), (x + 10, y + 2)], (128, 128, 134), 3)


HABITAT_PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, Random, int], None]] = {
    "forest": _forest,
    "beach": _beach,
    "desert": _desert,
    "snow": _snow,
    "meadow": _meadow,
    "pond": _pond,
    "reef": _reef,
    "street": _street,
}


def _sky_lights(draw: ImageDraw.ImageDraw, rng: Random, weather: str) -> None:
    """Sun or cloud, or moon and stars; nothing in rain and fog."""
    x = rng.randint(44, CANVAS - 44)
    if weather == "night":
        for _ in range(26):
            sx, sy, reach = rng.randint(4, CANVAS - 5), rng.randint(4, 118), rng.choice((2, 2, 3))
            draw.ellipse((sx - reach, sy - reach, sx + reach, sy + reach), (238, 240, 214))
        draw.polygon(smooth([(x + px, 46 + py) for px, py in MOON], closed=True), (246, 242, 206))
    elif weather == "clear" and rng.random() < 0.5:
        draw.ellipse((x - 30, 16, x + 30, 76), (252, 240, 180))
        draw.ellipse((x - 22, 24, x + 22, 68), (255, 228, 110))
    elif weather == "clear":
        for dx, dy, reach in ((-24, 8, 16), (0, 0, 22), (24, 8, 16)):
            draw.ellipse((x + dx - reach, 44 + dy - reach, x + dx + reach, 44 + dy + reach), (250, 252, 252))


@lru_cache(maxsize=1024)
def _tint(weather: str, brightness: int, warmth: int) -> list[int]:
    """A lookup table for the three channels: the weather's tint and the scene's light."""
    percents = [p * (100 + brightness + w) for p, w in zip(TINTS[weather], (warmth, 0, -warmth), strict=True)]
    return [min(255, value * percent // 10000) for percent in percents for value in range(256)]


@lru_cache(maxsize=16)
def _veil(strength: int, phase: int) -> Image.Image:
    """Fog as a mask: `strength` of 255 on average, in soft horizontal bands."""
    strip = Image.new("L", (1, CANVAS))
    bands = [abs((y + phase * 14) % 112 - 56) for y in range(CANVAS)]
    strip.putdata([strength + (band - 28) * strength // 140 for band in bands])
    return strip.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)


def paint_background(scene: Scene, layout: Layout) -> Image.Image:
    """Sky, ground, the habitat's elements, and the weather's light."""
    rng = Random(scene.key() + "habitat")
    # The sea is seen from within: only a strip of sky is left above it.
    horizon = layout.horizon // 2 if scene.habitat == "reef" else layout.horizon
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    canvas.paste(_gradient(*SKIES[scene.weather], horizon), (0, 0))
    canvas.paste(_gradient(*GROUNDS[scene.habitat], CANVAS - horizon), (0, horizon))
    if scene.weather != "night":
        _sky_lights(ImageDraw.Draw(canvas), rng, scene.weather)
    HABITAT_PAINTERS[scene.habitat](ImageDraw.Draw(canvas), rng, horizon)
    canvas = canvas.point(_tint(scene.weather, layout.brightness, layout.warmth))
    if scene.weather == "night":
        # After the tint, or the moon would be as dim as the ground.
        _sky_lights(ImageDraw.Draw(canvas), rng, scene.weather)
    if scene.weather == "fog":
        canvas.paste((232, 235, 237), mask=_veil(118, rng.randrange(8)))
    return canvas


def paint_weather(canvas: Image.Image, scene: Scene) -> None:
    """What lies between the eye and the animals: rain streaks, or a thin last veil of fog."""
    rng = Random(scene.key() + "weather")
    if scene.weather == "fog":
        canvas.paste((232, 235, 237), mask=_veil(52, rng.randrange(8)))
    elif scene.weather == "rain":
        draw = ImageDraw.Draw(canvas, "RGBA")
        for row in range(10):
            for column in range(10):
                x, y = column * 46 + rng.randint(-14, 30), row * 46 + rng.randint(-14, 20)
                draw.line([(x, y), (x - 10, y + 28)], (226, 240, 252, 190), 3)

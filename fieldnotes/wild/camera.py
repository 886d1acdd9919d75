"""What air, light and camera do to a picture: whole numbers only, so that it is the same on every machine."""

from __future__ import annotations

from io import BytesIO
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fieldscope.fieldnotes.props import Colour
from fieldscope.fieldnotes.wild.scene import HEIGHT, WIDTH, Shot, WildScene

Pixels = NDArray[np.int16]

AIR: Colour = (206, 214, 222)
FOG: Colour = (232, 235, 237)
CASTS: dict[str, Colour] = {"day": (100, 100, 100), "dusk": (108, 94, 82), "night": (92, 98, 112)}
"""What each light leaves of red, green and blue, in percent, before the gain."""


def paint_weather(canvas: Image.Image, scene: WildScene) -> None:
    """What lies between the camera and the animals: streaks of rain, or a thin veil of fog."""
    rng = Random(scene.key() + "weather")
    if scene.weather == "fog":
        phase = rng.randrange(168)
        veil = Image.new("L", (1, HEIGHT))
        veil.putdata([52 + (abs((y + phase) % 168 - 84) - 42) * 52 // 210 for y in range(HEIGHT)])
        canvas.paste(FOG, mask=veil.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
    elif scene.weather == "rain":
        draw = ImageDraw.Draw(canvas, "RGBA")
        for row in range(9):
            for column in range(12):
                x, y = column * 76 + rng.randint(-24, 50), row * 76 + rng.randint(-24, 40)
                draw.line([(x, y), (x - 16, y + 46)], (226, 240, 252, 180), rng.choice((3, 4, 5)))


def photographed(canvas: Image.Image, shot: Shot, seed: str) -> Image.Image:
    """The scene as the camera sees it: haze, light, the camera's movement, and grain."""
    bands = zip(AIR, CASTS[shot.light], strict=True)
    lit = canvas.point([_lit(level, air, cast, shot) for air, cast in bands for level in range(256)])
    pixels = _moved(np.asarray(lit).astype(np.int16), *shot.blur)
    if shot.grain:
        pixels += _noise(seed, shot.grain)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _lit(level: int, air: int, cast: int, shot: Shot) -> int:
    hazy = level + (air - level) * shot.haze // 100
    return min(255, hazy * cast * shot.gain // 10_000)


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """As a JPEG. Everything that its bytes depend on is said, but for the version of Pillow, which is pinned."""
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling="4:2:0", optimize=False, progressive=False)
    return stream.getvalue()


def _moved(pixels: Pixels, x: int, y: int) -> Pixels:
    """The mean over all places that the camera passes on its way by (x, y) pixels."""
    steps = max(abs(x), abs(y))
    if not steps:
        return pixels
    padded = np.pad(pixels, ((0, abs(y)), (0, abs(x)), (0, 0)), mode="edge")
    total = np.zeros_like(pixels)
    for step in range(steps + 1):
        right, down = step * abs(x) // steps, step * abs(y) // steps
        down = down if x * y >= 0 else abs(y) - down
        total += padded[down : down + pixels.shape[0], right : right + pixels.shape[1]]
    return total // (steps + 1)


def _noise(seed: str, deviation: int) -> Pixels:
    """Noise of nearly normal distribution, half of it in single pixels and half in blots of two by two."""
    bits = np.random.PCG64(Random(seed).getrandbits(64))  # raw bits are the same in every version of NumPy

    def normal(height: int, width: int) -> Pixels:
        # The sum of four bytes has a standard deviation of 147.8.
        values = bits.random_raw(height * width * 3 // 2).astype("<u8").view(np.uint8).reshape(4, height, width, 3)
        first, second, third, fourth = values.astype(np.int16)
        return first + second + third + fourth - 510

    noise = normal(HEIGHT, WIDTH)
    noise += normal(HEIGHT // 2, WIDTH // 2).repeat(2, axis=0).repeat(2, axis=1)
    noise *= deviation
    noise //= 209
    return noise

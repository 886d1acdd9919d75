"""The doctor's own images, drawn here and kept in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping

from PIL import Image as PILImage
from PIL import ImageDraw

from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels

SIDE = 448
"""Pixels; a multiple of every usual patch size (14, 16, 28, 32)."""

_MARGIN = SIDE // 5
_BOX = (_MARGIN, _MARGIN, SIDE - _MARGIN, SIDE - _MARGIN)
_DOT = SIDE // 12
_CELLS = 16
_LENGTH = 4  # of a long picture, in sides: its middle square is so far from its ends that no scaling mixes them


class Drawn:
    """An image source in memory."""

    def __init__(self, images: Mapping[str, PILImage.Image]) -> None:
        self._images = dict(images)
        self._hashes: dict[str, str] = {}

    def load(self, image_id: str) -> PILImage.Image:
        """The image. Raises `BrokenImageError` for an unknown id."""
        if image_id not in self._images:
            raise BrokenImageError(f"{image_id!r} is not one of the doctor's images. Add it first.")
        return self._images[image_id]

    def pixel_hash(self, image_id: str) -> str:
        if image_id not in self._hashes:
            self._hashes[image_id] = fingerprint_pixels(self.load(image_id))
        return self._hashes[image_id]

    def show(self, images: Mapping[str, PILImage.Image]) -> None:
        """Keep more images under new ids."""
        self._images |= images

    def add(self, image: PILImage.Image) -> str:
        """Keep another image and return its id."""
        image_id = f"image {len(self._images)}"
        self._images[image_id] = image
        return image_id


def circle(colour: str) -> PILImage.Image:
    """A large disc on white."""
    image = blank()
    ImageDraw.Draw(image).ellipse(_BOX, fill=colour)
    return image


def square(colour: str) -> PILImage.Image:
    """A large square on white."""
    image = blank()
    ImageDraw.Draw(image).rectangle(_BOX, fill=colour)
    return image


def triangle(colour: str) -> PILImage.Image:
    """A large triangle on white, standing on its base."""
    left, top, right, bottom = _BOX
    image = blank()
    ImageDraw.Draw(image).polygon([(SIDE // 2, top), (right, bottom), (left, bottom)], fill=colour)
    return image


def dots(number: int) -> PILImage.Image:
    """Black dots in a row on white, far apart."""
    image = blank()
    draw = ImageDraw.Draw(image)
    for place in range(number):
        x, y = SIDE * (2 * place + 1) // (2 * number), SIDE // 2
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill="black")
    return image


def long_pictures(*ends: PILImage.Image) -> dict[str, list[PILImage.Image]]:
    """Pictures four times as `wide` and as `tall` as each of the `ends`, which they show at their left or their top and
    nothing beside."""
    return {"wide": [_longer(end, _LENGTH, 1) for end in ends], "tall": [_longer(end, 1, _LENGTH) for end in ends]}


def _longer(end: PILImage.Image, across: int, down: int) -> PILImage.Image:
    whole = PILImage.new("RGB", (across * end.width, down * end.height), "white")
    whole.paste(end, (0, 0))
    return whole


def blank() -> PILImage.Image:
    """A white image."""
    return PILImage.new("RGB", (SIDE, SIDE), "white")


def mosaic(side: int = SIDE) -> PILImage.Image:
    """Random coloured cells: an image that no server can have cached."""
    cells = PILImage.frombytes("RGB", (_CELLS, _CELLS), os.urandom(3 * _CELLS * _CELLS))
    return cells.resize((side, side), PILImage.Resampling.NEAREST)

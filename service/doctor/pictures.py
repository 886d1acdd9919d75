"""The doctor's own pictures: drawn here, kept in memory."""

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


class Drawn:
    """An image source in memory."""

    def __init__(self, pictures: Mapping[str, PILImage.Image]) -> None:
        self._pictures = dict(pictures)
        self._hashes: dict[str, str] = {}

    def load(self, image_id: str) -> PILImage.Image:
        """The picture. Raises `BrokenImageError` for one that was never drawn."""
        if image_id not in self._pictures:
            raise BrokenImageError(f"{image_id!r} is none of the doctor's pictures")
        return self._pictures[image_id]

    def pixel_hash(self, image_id: str) -> str:
        if image_id not in self._hashes:
            self._hashes[image_id] = fingerprint_pixels(self.load(image_id))
        return self._hashes[image_id]

    def show(self, pictures: Mapping[str, PILImage.Image]) -> None:
        """Keep more pictures, under ids that were not used yet or for the same picture."""
        self._pictures |= pictures

    def add(self, picture: PILImage.Image) -> str:
        """Keep another picture; its id."""
        image_id = f"picture {len(self._pictures)}"
        self._pictures[image_id] = picture
        return image_id


def circle(colour: str) -> PILImage.Image:
    """A large disc on white."""
    picture = blank()
    ImageDraw.Draw(picture).ellipse(_BOX, fill=colour)
    return picture


def square(colour: str) -> PILImage.Image:
    """A large square on white."""
    picture = blank()
    ImageDraw.Draw(picture).rectangle(_BOX, fill=colour)
    return picture


def triangle(colour: str) -> PILImage.Image:
    """A large triangle on white, standing on its base."""
    left, top, right, bottom = _BOX
    picture = blank()
    ImageDraw.Draw(picture).polygon([(SIDE // 2, top), (right, bottom), (left, bottom)], fill=colour)
    return picture


def dots(number: int) -> PILImage.Image:
    """Black dots in a row on white, far apart."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    for place in range(number):
        x, y = SIDE * (2 * place + 1) // (2 * number), SIDE // 2
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill="black")
    return picture


def blank() -> PILImage.Image:
    """White, and nothing else."""
    return PILImage.new("RGB", (SIDE, SIDE), "white")


def mosaic(side: int = SIDE) -> PILImage.Image:
    """Coloured cells, by chance: a picture that no server has seen before, in this examination or another."""
    cells = PILImage.frombytes("RGB", (_CELLS, _CELLS), os.urandom(3 * _CELLS * _CELLS))
    return cells.resize((side, side), PILImage.Resampling.NEAREST)

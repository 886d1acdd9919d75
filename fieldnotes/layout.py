"""Where everything of a scene stands: a pure function of the scene, in whole pixels of a 448x448 canvas."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fieldscope.fieldnotes.scene import Scene

CANVAS = 448
# Space kept above an animal (leaf, Z, post) and beneath it (shadow, motion strokes, post).
HEADROOM = 32
FOOTROOM = 40
SIDE = 6

Cell = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """One animal: its group, the centre of its box, the width of its nominal box, and whether it faces left."""

    group: int
    x: int
    y: int
    size: int
    flip: bool


@dataclass(frozen=True)
class Layout:
    """All animals, the height of the horizon, and the light (brightness and warmth, in percent)."""

    placements: tuple[Placement, ...]
    horizon: int
    brightness: int
    warmth: int


def place(scene: Scene) -> Layout:
    """Lay the scene out: a shuffled grid of cells with jitter, so that animals never overlap and nothing can fail."""
    rng = Random(scene.key())
    horizon = rng.randint(108, 160)
    owners = [index for index, group in enumerate(scene.groups) for _ in range(group.count)]
    cells = _cells(len(owners), rng)
    placements = []
    for owner, cell in zip(owners, cells, strict=False):
        lying = scene.groups[owner].pose in ("resting", "sleeping")
        placements.append(_jitter(owner, cell, _size(len(owners), rng), horizon if lying else 0, rng))
    return Layout(tuple(placements), horizon, rng.randint(-7, 7), rng.randint(-5, 5))


def _size(animals: int, rng: Random) -> int:
    if animals <= 2:
        return rng.randint(160, 190)
    return rng.randint(128, 150) if animals == 3 else rng.randint(110, 125)


def _cells(animals: int, rng: Random) -> list[Cell]:
    """At least `animals` disjoint cells; neighbours in half of the scenes, anywhere in the others."""
    if animals == 1:
        columns, rows = 1, 1
    elif animals == 2:
        columns, rows = 2, 1
    else:
        columns, rows = (2, 2) if animals == 3 or (animals == 4 and rng.random() < 0.5) else (3, 2)
    width, height = CANVAS // columns, CANVAS // rows
    cells = [(c * width, r * height, (c + 1) * width, (r + 1) * height) for r in range(rows) for c in range(columns)]
    if rng.random() < 0.5:
        rng.shuffle(cells)
    elif rng.random() < 0.5:
        cells.reverse()
    return cells


def _jitter(group: int, cell: Cell, size: int, horizon: int, rng: Random) -> Placement:
    """A random place within the cell, with the feet below the horizon as far as the cell lets them."""
    half = size // 2
    left, right = cell[0] + half + SIDE, cell[2] - half - SIDE
    top, bottom = cell[1] + half + HEADROOM, cell[3] - half - FOOTROOM
    bottom = max(top, bottom)
    top = min(bottom, max(top, horizon - half // 2))
    return Placement(group, rng.randint(left, right), rng.randint(top, bottom), size, rng.random() < 0.5)

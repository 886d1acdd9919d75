"""Where every animal of a wild scene stands, in whole pixels of the frame: a pure function of the scene."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fieldscope.fieldnotes.props import Box
from fieldscope.fieldnotes.wild.scene import HEIGHT, WIDTH, WildScene

COLUMN, ROW = 110, 125
"""The cell of an animal, in percent of its width: what is above and beneath an animal needs room."""

MOST_WIDTH = {1: 600, 2: 420, 3: 290, 4: 290, 5: 280}
"""So many main animals fit into the frame at this width, in thousandths of the frame's."""

_STEPS = 16


@dataclass(frozen=True)
class Spot:
    """One animal: its group, the centre and the width of its box, and whether it faces left."""

    group: int
    x: int
    y: int
    width: int
    flip: bool

    @property
    def box(self) -> Box:
        half = self.width // 2
        return self.x - half, self.y - half, self.x + half, self.y + half


@dataclass(frozen=True)
class Layout:
    """All animals, those farther away first, and the height of the horizon in pixels."""

    spots: tuple[Spot, ...]
    horizon: int


def place(scene: WildScene) -> Layout:
    """The main animals together in a block of cells somewhere in the frame, the distractors in the free room.

    Raises ValueError where a distractor has no room.
    """
    rng = Random(scene.key())
    horizon = rng.randint(160, 240)
    widths = [thousandths * WIDTH // 1000 for thousandths in scene.shot.widths]
    owners = [at for at, group in enumerate(scene.subjects) for _ in range(group.count)]
    cell = max(widths[at] for at in owners)
    cells = _block(len(owners), cell, all(g.pose in ("resting", "sleeping") for g in scene.subjects), horizon, rng)
    spots = [
        Spot(owner, x + _jitter(cell, rng), y + _jitter(cell, rng), widths[owner], rng.random() < 0.5)
        for owner, (x, y) in zip(owners, cells, strict=False)
    ]
    for at in range(scene.main, len(scene.groups)):
        spots.append(_beside(at, widths[at], spots, horizon, rng))
    return Layout(tuple(sorted(spots, key=lambda spot: (spot.y, spot.x))), horizon)


def _jitter(width: int, rng: Random) -> int:
    return rng.randint(-width // 25, width // 25)


def _block(animals: int, width: int, lying: bool, horizon: int, rng: Random) -> list[tuple[int, int]]:
    """The centres of the cells of a block that lies within the frame, shuffled; there may be more than animals.

    The block's centre keeps to the middle 70 % of the frame's width, as far as the block lets it, since models that
    read a square see no more of the frame than that.
    """
    column, row = width * COLUMN // 100, width * ROW // 100
    columns = {1: 1, 2: 2, 3: rng.choice((2, 3)), 4: 2, 5: 3}[animals]
    rows = -(-animals // columns)
    reach, tall = min(column * columns, WIDTH) // 2, min(row * rows, HEIGHT) // 2
    left, right = max(reach, WIDTH * 15 // 100), min(WIDTH - reach, WIDTH * 85 // 100)
    x = rng.randint(min(left, WIDTH // 2), max(right, WIDTH // 2))
    if reach * 4 < WIDTH and abs(x - WIDTH // 2) < WIDTH // 12:  # few photographs have their subject in the middle
        x = rng.randint(left, right)
    highest = max(tall, horizon - tall + width // 2) if lying else tall
    y = rng.randint(min(highest, HEIGHT - tall), HEIGHT - tall)
    centres = [
        (x - reach + (2 * c + 1) * reach // columns, y - tall + (2 * r + 1) * tall // rows)
        for c in range(columns)
        for r in range(rows)
    ]
    rng.shuffle(centres)
    return centres


def _beside(group: int, width: int, spots: list[Spot], horizon: int, rng: Random) -> Spot:
    """A place for a distractor that leaves every other animal its cell."""
    reach, tall = width * COLUMN // 200, width * ROW // 200
    xs = range(reach, WIDTH - reach + 1, max(1, (WIDTH - 2 * reach) // _STEPS))
    ys = range(max(tall, horizon - width // 4), HEIGHT - tall + 1, max(1, (HEIGHT - 2 * tall) // _STEPS))
    free = [(x, y) for x in xs for y in ys if all(_apart(x, y, width, spot) for spot in spots)]
    if not free:
        raise ValueError("a distractor has no space; leave it out")
    x, y = rng.choice(free)
    return Spot(group, x, y, width, rng.random() < 0.5)


def _apart(x: int, y: int, width: int, spot: Spot) -> bool:
    both = width + spot.width
    return abs(x - spot.x) * 200 >= both * COLUMN or abs(y - spot.y) * 200 >= both * ROW

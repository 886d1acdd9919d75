"""Draws how a scene is photographed: distractors, and all that makes a picture hard to read."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from fieldscope.fieldnotes.sampling import new_seed, other
from fieldscope.fieldnotes.scene import COLOURS, ITEMS, POSES, SPECIES, Group, Scene
from fieldscope.fieldnotes.wild.layout import MOST_WIDTH, place
from fieldscope.fieldnotes.wild.scene import MOST_GROUPS, OCCLUSIONS, SIZES, Conditions, Shot, WildScene

DRAWS = {"small": 1, "medium": 1, "large": 3}
"""The least of so many widths is taken: few photographs are filled by their subject."""

DISTRACTORS = (0, 1, 1, 2)
DISTRACTOR_WIDTHS = (90, 240)

GAINS = {"day": (88, 106), "dusk": (80, 95), "night": (88, 104)}
"""Brightness in percent, the least and the greatest, by light; night is dark before that."""

GRAINS = {"day": (2, 5), "dusk": (3, 8), "night": (4, 9)}
BLURS = (0, 0, 0, 0, 2, 4)
HAZES = (0, 0, 0, 4, 8, 12)
QUALITIES = (50, 92)


def random_conditions(rng: Random, light: str, size: str | None = None) -> Conditions:
    """Any size and occlusion in a light."""
    occlusion = rng.choices(list(OCCLUSIONS), (0.5, 0.3, 0.2))[0]
    return Conditions(size or rng.choice(list(SIZES)), light, occlusion)


def random_light(rng: Random, weather: str) -> str:
    """A light in which a scene of this weather may be photographed."""
    return "night" if weather == "night" else rng.choice(("day", "day", "dusk"))


def photographed(scene: Scene, conditions: Conditions, rng: Random, distractors: bool = True) -> WildScene:
    """The scene photographed so that all of its groups are seen under these conditions, with distractors where there
    is room for them and they are wanted."""
    least, most = SIZES[conditions.size]
    most = min(most, MOST_WIDTH[sum(group.count for group in scene.groups)])
    width = min(rng.randint(least, most) for _ in range(DRAWS[conditions.size]))
    widths = [_near(width, least, most, rng) for _ in scene.groups]
    hidden = [rng.randint(*OCCLUSIONS[conditions.occlusion]) for _ in scene.groups]
    made = WildScene(
        scene.habitat,
        scene.weather,
        scene.groups,
        new_seed(rng),
        len(scene.groups),
        _shot(conditions.light, widths, hidden, rng),
    )
    for _ in range(rng.choice(DISTRACTORS) if distractors else 0):
        made = _with_distractor(made, rng)
    return made


def _near(width: int, least: int, most: int, rng: Random) -> int:
    """About as wide, in the same band: the animals of a scene stand together."""
    return min(max(width * rng.randint(92, 108) // 100, least), most)


def _shot(light: str, widths: list[int], hidden: list[int], rng: Random) -> Shot:
    moved, sign = rng.choice(BLURS), rng.choice((-1, 1))
    along = rng.randint(0, moved)
    return Shot(
        light,
        tuple(widths),
        tuple(hidden),
        rng.randint(*GAINS[light]),
        rng.randint(*GRAINS[light]),
        (sign * along, moved - along) if moved else (0, 0),
        rng.choice(HAZES),
        rng.randint(*QUALITIES),
    )


def _with_distractor(scene: WildScene, rng: Random) -> WildScene:
    """The scene with one more animal, of which nothing else is true; as it is where there is no room for it."""
    if len(scene.groups) == MOST_GROUPS:
        return scene
    group = Group(
        other(rng, tuple(SPECIES), *[g.species for g in scene.groups]),
        other(rng, COLOURS, *[g.colour for g in scene.groups]),
        1,
        rng.choice(POSES),
        rng.choice(ITEMS),
    )
    low, high = DISTRACTOR_WIDTHS
    shot = replace(scene.shot, widths=(*scene.shot.widths, rng.randint(low, high)), hidden=(*scene.shot.hidden, 0))
    crowded = replace(scene, groups=(*scene.groups, group), shot=shot)
    try:
        place(crowded)
    except ValueError:
        return scene
    return crowded

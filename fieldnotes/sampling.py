"""Draws scenes, one-attribute counterfactuals of them, and queries about them, from a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from fieldscope.fieldnotes.facts import Part, Spec, is_training_scene
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Group, Scene

POSE_WEIGHTS = (0.46, 0.18, 0.18, 0.18)
ITEM_WEIGHTS = (0.4, 0.12, 0.12, 0.12, 0.12, 0.12)
WEATHER_WEIGHTS = (0.34, 0.22, 0.22, 0.22)
FAMILY = 4


def new_seed(rng: random.Random) -> int:
    """A nuisance seed: where things stand, how large, in what light."""
    return rng.getrandbits(32)


def random_scene(rng: random.Random, companion: float = 0.45) -> Scene:
    """Any scene; with probability `companion` it holds a second group of another species and colour."""
    n = 2 if rng.random() < companion else 1
    species, colours = rng.sample(list(SPECIES), n), rng.sample(COLOURS, n)
    groups = tuple(
        Group(
            species[i],
            colours[i],
            rng.choices((1, 2, 3), (0.4, 0.32, 0.28))[0] if i == 0 else rng.choices((1, 2), (0.65, 0.35))[0],
            rng.choices(POSES, POSE_WEIGHTS)[0],
            rng.choices(ITEMS, ITEM_WEIGHTS)[0],
        )
        for i in range(n)
    )
    return Scene(rng.choice(HABITATS), rng.choices(WEATHERS, WEATHER_WEIGHTS)[0], groups, new_seed(rng))


def other(rng: random.Random, options: tuple[str, ...], *taken: str) -> str:
    """One of `options` that is none of `taken`."""
    return rng.choice([option for option in options if option not in taken])


def mutate(scene: Scene, rng: random.Random) -> Scene:
    """A counterfactual: one attribute changed, or one swapped between the groups; drawn with a new nuisance seed."""
    i = rng.randrange(len(scene.groups))
    group = scene.groups[i]
    most = 3 if i == 0 else 2

    def with_group(**changes: object) -> Scene:
        groups = list(scene.groups)
        groups[i] = replace(group, **changes)  # type: ignore[arg-type]
        return replace(scene, groups=tuple(groups))

    def swap(field: str) -> Scene:
        a, b = scene.groups
        return replace(
            scene,
            groups=(replace(a, **{field: getattr(b, field)}), replace(b, **{field: getattr(a, field)})),
        )

    species = tuple(SPECIES)
    taken_species, taken_colours = [g.species for g in scene.groups], [g.colour for g in scene.groups]
    changes: list[Callable[[], Scene]] = [
        lambda: with_group(species=other(rng, species, *taken_species)),
        lambda: with_group(colour=other(rng, COLOURS, *taken_colours)),
        lambda: with_group(count=rng.choice([n for n in range(1, most + 1) if n != group.count])),
        lambda: with_group(count=rng.choice([n for n in range(1, most + 1) if n != group.count])),
        lambda: with_group(pose=other(rng, POSES, group.pose)),
        lambda: with_group(item=other(rng, ITEMS, group.item)),
        lambda: replace(scene, habitat=other(rng, HABITATS, scene.habitat)),
        lambda: replace(scene, weather=other(rng, WEATHERS, scene.weather)),
    ]
    if len(scene.groups) == 2:
        changes += [lambda: swap("colour"), lambda: swap("item"), lambda: swap("pose")]
        changes += [lambda: replace(scene, groups=scene.groups[:1])]
    else:
        extra = Group(
            other(rng, species, *taken_species),
            other(rng, COLOURS, *taken_colours),
            rng.choice((1, 2)),
            rng.choice(POSES),
            rng.choice(ITEMS),
        )
        changes += [lambda: replace(scene, groups=(*scene.groups, extra))]
    while True:
        changed = rng.choice(changes)()
        if changed.content() != scene.content():
            return replace(changed, seed=new_seed(rng))


def training_family(index: int) -> tuple[Scene, ...]:
    """`FAMILY` training scenes: one, and counterfactuals of it, none of which shows a held-out combination."""
    rng = random.Random(f"fieldnotes-train-{index}")
    while not is_training_scene(base := random_scene(rng)):
        pass
    family = [base]
    while len(family) < FAMILY:
        source = base if rng.random() < 0.7 else family[-1]
        if is_training_scene(variant := mutate(source, rng)):
            family.append(variant)
    return tuple(family)


def random_part(group: Group, rng: random.Random, attributes: int) -> Part:
    """True words about a group: its species and up to `attributes` of its colour, count, pose and item."""
    part = Part(group.species)
    options = ["colour", "count"]
    options += ["pose", "pose"] if group.pose != "resting" else []
    options += ["item", "item"] if group.item != "none" else []
    for name in dict.fromkeys(rng.sample(options, len(options))):
        if attributes == 0:
            break
        part = replace(part, **{name: getattr(group, name)})
        attributes -= 1
    if not part.item and attributes and rng.random() < 0.3:
        part = replace(part, without=other(rng, ITEMS[1:], group.item))
    return part


def random_spec(scene: Scene, rng: random.Random, least: int = 1, most: int = 6) -> Spec:
    """A query that `scene` matches, with `least` to `most` facts (the subject is always one of them)."""
    while True:
        order = list(scene.groups)
        rng.shuffle(order)
        part = random_part(order[0], rng, rng.choices((0, 1, 2, 3), (0.1, 0.3, 0.35, 0.25))[0])
        companion, more, alone = None, False, False
        if len(order) == 2 and rng.random() < 0.55:
            companion = random_part(order[1], rng, rng.choices((0, 1, 2), (0.3, 0.5, 0.2))[0])
            if companion.without:
                companion = replace(companion, without="")
            if order[0].count > order[1].count and rng.random() < 0.25:
                part, companion, more = Part(part.species), Part(companion.species), True
        elif len(order) == 1 and rng.random() < 0.12:
            alone = True
        spec = Spec(
            part,
            companion,
            scene.habitat if rng.random() < 0.55 else "",
            scene.weather if rng.random() < (0.35 if scene.weather != "clear" else 0.1) else "",
            alone,
            more,
        )
        if least <= len(spec.facts()) <= most:
            return spec

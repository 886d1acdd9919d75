"""The benchmark itself: which scenes a split holds, which queries are asked of it, and what is relevant.

Everything follows from the split's name. Held-out combinations (`facts.held_out`) are in no training scene, so
queries that name one ask for something that neither model has ever read or seen together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from fieldscope.core.types import Query, Turn
from fieldscope.fieldnotes.facts import Fact, Spec, find, held_out
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.sampling import new_seed, other, random_scene, random_spec
from fieldscope.fieldnotes.scene import COLOURS, COUNTS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Group, Scene

Key = TypeVar("Key")

SIZES = {"validation": (40, 500), "test": (160, 2400)}
"""Queries and images per split."""

SUPERCATEGORIES = ("Appearance", "Behavior", "Context", "Species")
FREQUENT = 0.012
RELEVANT = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 10)
CATEGORIES = {
    "airborne": "Movement",
    "sleeping": "Rest",
    "climbing": "Movement",
    "litter": "Human Impact",
    "net": "Human Impact",
    "tag": "Research Marking",
    "nest": "Reproduction",
    "leaf": "Carrying",
}


@dataclass(frozen=True)
class BenchmarkQuery:
    """A query of any kind, what it means, and the groups that INQUIRE would file it under."""

    id: str
    text: str
    spec: Spec
    supercategory: str
    category: str
    reference_image: str | None = None
    dialogue: tuple[Turn, ...] = ()

    @property
    def iconic_group(self) -> str:
        """INQUIRE's group of the subject's species."""
        return SPECIES[self.spec.subject.species].iconic_group

    @property
    def query(self) -> Query:
        """The query without its answer key."""
        return Query(id=self.id, text=self.text, reference_image=self.reference_image, dialogue=self.dialogue)


@dataclass(frozen=True)
class Split:
    """Scenes by image id (1, 2, ... as text, as in iNaturalist), and queries with their relevant images."""

    name: str
    scenes: dict[str, Scene]
    queries: tuple[BenchmarkQuery, ...]
    relevant: dict[str, frozenset[str]]


def images_one_fact_short(split: Split) -> dict[str, frozenset[str]]:
    """Query id -> its near misses: the images in which every fact of the query holds but one. None of a query that
    says a single fact."""
    holding = holder(split.scenes)

    def short(spec: Spec) -> frozenset[str]:
        images = [holding(fact) for fact in spec.facts()]
        if len(images) < 2:
            return frozenset()
        but_one = (frozenset.intersection(*images[:i], *images[i + 1 :]) - of for i, of in enumerate(images))
        return frozenset().union(*but_one)

    return {query.id: short(query.spec) for query in split.queries}


def is_novel(spec: Spec) -> bool:
    """Whether a query names a combination that no training scene shows."""
    parts = [part for part in (spec.subject, spec.companion) if part]
    return any(part.colour and spec.habitat and held_out(part.species, part.colour, spec.habitat) for part in parts)


def classify(spec: Spec) -> tuple[str, str]:
    """INQUIRE's supercategory and category for a query."""
    parts = [part for part in (spec.subject, spec.companion) if part]
    if pose := next((part.pose for part in parts if part.pose), ""):
        return "Behavior", CATEGORIES[pose]
    if item := next((part.item or part.without for part in parts if part.item or part.without), ""):
        return "Context", CATEGORIES[item]
    if any(part.colour for part in parts):
        return "Appearance", "Colour"
    if spec.weather:
        return "Context", "Weather"
    return "Species", "Abundance" if any(part.count for part in parts) or spec.more else "Company"


def draw_spec(rng: random.Random, supercategory: str, novel: bool, least: int = 2, most: int = 6) -> Spec:
    """A query of one supercategory with `least` to `most` facts that matches few random scenes."""
    while True:
        spec = random_spec(random_scene(rng), rng, max(least, 3) if supercategory == "Species" else least, most)
        if novel and supercategory != "Species" and not is_novel(spec):
            part = replace(spec.subject, colour=spec.subject.colour or rng.choice(COLOURS))
            homes = [habitat for habitat in HABITATS if held_out(part.species, part.colour, habitat)]
            clash = spec.more or (spec.companion and spec.companion.colour == part.colour)
            if clash or not homes:
                continue
            spec = replace(spec, subject=part, habitat=rng.choice(homes))
        if classify(spec)[0] == supercategory and least <= len(spec.facts()) <= most and _share(spec) < FREQUENT:
            return spec


def holder(scenes: Mapping[Key, Scene]) -> Callable[[Fact], frozenset[Key]]:
    """A function that gives the keys of the scenes in which a fact holds. Queries share most of their facts, so each
    fact is looked up once, in the scenes that may answer its question with yes."""
    everywhere = frozenset(scenes)
    by_species: dict[str, list[Key]] = {name: [] for name in SPECIES}
    for key, scene in scenes.items():
        for group in scene.groups:
            by_species[group.species].append(key)

    @cache
    def holding(fact: Fact) -> frozenset[Key]:
        among = by_species[fact.species] if fact.about_one_group else scenes
        yes = frozenset(key for key in among if fact.answer(scenes[key]))
        return yes if fact.expected else everywhere - yes

    return holding


def matcher(scenes: Mapping[Key, Scene]) -> Callable[[Spec], frozenset[Key]]:
    """A function that gives the keys of the scenes which a query matches."""
    holding = holder(scenes)
    return lambda spec: frozenset.intersection(*map(holding, spec.facts()))


_SAMPLE = 4000


@cache
def _matches_in_sample() -> Callable[[Spec], frozenset[int]]:
    rng = random.Random("fieldnotes-frequency")
    return matcher({n: random_scene(rng) for n in range(_SAMPLE)})


def _share(spec: Spec) -> float:
    return len(_matches_in_sample()(spec)) / _SAMPLE


def matching_scene(spec: Spec, rng: random.Random) -> Scene:
    """A random scene that the query matches: what the query leaves open is drawn."""
    while True:
        scene = random_scene(rng, 0.0 if spec.alone else 0.45)
        groups = list(scene.groups)
        if spec.companion and len(groups) == 1:
            groups.append(replace(random_scene(rng, 0.0).groups[0], count=rng.choice((1, 2))))
        for i, part in enumerate(part for part in (spec.subject, spec.companion) if part):
            group = groups[i]
            groups[i] = Group(
                part.species,
                part.colour or group.colour,
                part.count or group.count,
                part.pose or group.pose,
                part.item or group.item,
            )
            if part.without and groups[i].item == part.without:
                groups[i] = replace(groups[i], item="none")
        if len({g.species for g in groups}) < len(groups) or len({g.colour for g in groups}) < len(groups):
            continue
        rng.shuffle(groups)
        if any(g.count > 2 for g in groups[1:]):
            groups.reverse()
        made = Scene(spec.habitat or scene.habitat, spec.weather or scene.weather, tuple(groups), new_seed(rng))
        if spec.matches(made) and all(g.count <= 2 for g in groups[1:]):
            return made


def near_misses(spec: Spec, rng: random.Random) -> Iterator[Scene]:
    """For every fact of the query a scene in which that fact alone is wrong, where there can be one."""
    for fact in spec.facts():
        for _ in range(60):
            scene = _break(matching_scene(spec, rng), fact, rng)
            if scene is not None and not fact.holds(scene) and spec.satisfied(scene) == len(spec.facts()) - 1:
                yield scene
                break


def _break(scene: Scene, fact: Fact, rng: random.Random) -> Scene | None:
    """`scene` with `fact` made wrong; colours, poses and items are now and then swapped with the other group's."""
    if fact.kind == "habitat":
        return replace(scene, habitat=other(rng, HABITATS, scene.habitat), seed=new_seed(rng))
    if fact.kind == "weather":
        return replace(scene, weather=other(rng, WEATHERS, scene.weather), seed=new_seed(rng))
    if fact.kind == "alone":
        taken = scene.groups[0]
        extra = Group(other(rng, tuple(SPECIES), taken.species), other(rng, COLOURS, taken.colour))
        return replace(scene, groups=(taken, extra), seed=new_seed(rng))
    group = find(scene, fact.species)
    if group is None:
        return None
    at = scene.groups.index(group)
    rest = [g for g in scene.groups if g is not group]
    if fact.kind == "comparison":
        bigger = [replace(g, count=2) for g in rest]
        return replace(scene, groups=(replace(group, count=1), *bigger), seed=new_seed(rng))
    if fact.kind == "subject":
        changed = replace(group, species=other(rng, tuple(SPECIES), *[g.species for g in scene.groups]))
    elif fact.kind == "count":
        changed = replace(group, count=rng.choice([n for n in COUNTS if n != group.count and (at == 0 or n < 3)]))
    else:
        name, domain = {"colour": ("colour", COLOURS), "behaviour": ("pose", POSES)}.get(fact.kind, ("item", ITEMS))
        now = getattr(group, name)
        if fact.kind == "absence":
            changed = replace(group, item=fact.value)
        elif rest and getattr(rest[0], name) != now and rng.random() < 0.5:
            swapped = replace(rest[0], **{name: now})
            changed = replace(group, **{name: getattr(rest[0], name)})
            pair = (changed, swapped) if at == 0 else (swapped, changed)
            return replace(scene, groups=pair, seed=new_seed(rng))
        else:
            value: Any = other(rng, domain, now, *[getattr(g, name) for g in rest])
            changed = replace(group, **{name: value})
    groups = tuple(changed if g is group else g for g in scene.groups)
    return replace(scene, groups=groups, seed=new_seed(rng))


def collect(scenes: Sequence[Scene], size: int, rng: random.Random) -> dict[str, Scene]:
    """A collection of `size` images by id: these scenes, each once, among random others."""
    unique = list({scene.key(): scene for scene in scenes}.values())
    if len(unique) > size:
        raise ValueError(f"{len(unique)} scenes do not fit into {size}")
    while len(unique) < size:
        unique.append(random_scene(rng))
    rng.shuffle(unique)
    return {str(i + 1): scene for i, scene in enumerate(unique)}


def judged(name: str, scenes: dict[str, Scene], queries: Iterable[BenchmarkQuery]) -> Split:
    """A split whose relevant images are those that match."""
    asked, matches = tuple(queries), matcher(scenes)
    return Split(name, scenes, asked, {query.id: matches(query.spec) for query in asked})


@cache
def load_split(name: str) -> Split:
    """A split, made from its name: always the same."""
    number, size = SIZES[name]
    rng = random.Random(f"fieldnotes-{name}-1")
    specs: dict[str, Spec] = {}
    while len(specs) < number:
        i = len(specs)
        spec = draw_spec(rng, SUPERCATEGORIES[i % 4], novel=i % 2 == 0)
        specs.setdefault(Words(rng).spec(spec), spec)
    scenes: list[Scene] = []
    for spec in specs.values():
        scenes += [matching_scene(spec, rng) for _ in range(rng.choice(RELEVANT))]
        scenes += near_misses(spec, rng)
        scenes += islice(near_misses(spec, rng), 4)
    by_id = collect(scenes, size, rng)
    queries = (
        BenchmarkQuery(f"{name[0]}{i:03d}", text, spec, *classify(spec)) for i, (text, spec) in enumerate(specs.items())
    )
    return judged(name, by_id, queries)

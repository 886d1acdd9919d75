"""FieldNotes-Wild: which photographs a split holds, which queries are asked of it, and what is relevant.

All matches of a query are seen under the same conditions: a band of subject size, a light, and a class of occlusion.
A scene that matches a query under other conditions isn't taken into the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from random import Random

from fieldscope.core.errors import BenchmarkError
from fieldscope.fieldnotes.facts import Spec
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.queries import (
    RELEVANT,
    SUPERCATEGORIES,
    BenchmarkQuery,
    Split,
    classify,
    draw_spec,
    judged,
    matcher,
    matching_scene,
    near_misses,
)
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.unmatched import FACTS, FAILING, checksum, draw_failing
from fieldscope.fieldnotes.wild.scene import SIZES as BANDS
from fieldscope.fieldnotes.wild.scene import Conditions, WildScene
from fieldscope.fieldnotes.wild.shots import photographed, random_conditions, random_light

SIZES = {"validation": (48, 12, 800), "development": (96, 24, 1500), "test": (160, 40, 2400)}
"""Queries with matches, queries without, and images per split."""

CHECKSUMS = {
    "validation": "31a79ce4fec65316634eae0ee8fda2490cfdebc9efd65226174ff1b66622c30a",
    "development": "183f178cd3a6563bb06ce870bace1c81e6e37dec501455abda82530d2acb293f",
    "test": "767c02b52452e608accce8633f5c95068270b39b9167181ddc213e33c5525da1",
}
"""SHA-256 over the queries of each split: ids, texts and facts."""


@dataclass(frozen=True)
class WildQuery(BenchmarkQuery):
    """A query with the conditions under which its matches are seen; where there are none, those of a photograph that
    shows all of the query but one part."""

    conditions: Conditions = field(kw_only=True)

    @property
    def groups(self) -> Mapping[str, str]:
        """Kind of group -> the query's own, for breakdowns."""
        seen = self.conditions
        return {"subject_size": seen.size, "light": seen.light, "occlusion": seen.occlusion}


class _Collection:
    """The photographs so far, each consistent with the conditions of every query."""

    def __init__(self, asked: Mapping[Spec, Conditions]) -> None:
        self.scenes: dict[str, WildScene] = {}
        self._by_subject: dict[str, list[tuple[Spec, Conditions]]] = {}
        for spec, conditions in asked.items():
            self._by_subject.setdefault(spec.subject.species, []).append((spec, conditions))

    def add(self, scene: WildScene) -> bool:
        """Take the photograph unless it matches a query under other conditions; whether it was taken."""
        asked = (query for group in scene.groups for query in self._by_subject.get(group.species, ()))
        if any(scene.conditions(spec.subject.species) != seen and spec.matches(scene) for spec, seen in asked):
            return False
        self.scenes.setdefault(scene.key(), scene)
        return True


def _light(spec: Spec, rng: Random) -> str:
    """A light for a query's matches: that of its weather, where it names one."""
    if spec.weather:
        return random_light(rng, spec.weather)
    return rng.choices(("day", "dusk", "night"), (0.5, 0.25, 0.25))[0]


def _scene(spec: Spec, light: str, rng: Random) -> Scene:
    """A random scene that the query matches, whose weather goes with the light."""
    while True:
        scene = matching_scene(spec, rng)
        if (scene.weather == "night") == (light == "night"):
            return scene


def _asked(number: int, rng: Random) -> dict[Spec, tuple[str, Conditions]]:
    """Queries with their texts and conditions; the bands of subject size follow each other. None is part of another,
    since their matches could not be seen under different conditions."""
    asked: dict[Spec, tuple[str, Conditions]] = {}
    examples: list[Scene] = []
    while len(asked) < number:
        at = len(asked)
        spec = draw_spec(rng, SUPERCATEGORIES[at % 4], novel=at % 2 == 0)
        seen = random_conditions(rng, _light(spec, rng), list(BANDS)[at % len(BANDS)])
        own = [_scene(spec, seen.light, rng) for _ in range(_EXAMPLES)]
        if any(map(spec.matches, examples)) or any(other.matches(scene) for other in asked for scene in own):
            continue
        asked[spec] = Words(rng).spec(spec), seen
        examples += own
    return asked


_EXAMPLES = 5


def _planted(spec: Spec, seen: Conditions, collection: _Collection, rng: Random) -> None:
    """Add the query's matches, and near misses seen alike where their weather allows it."""
    wanted, taken = rng.choice(RELEVANT), 0
    while taken < wanted:
        scene = _scene(spec, seen.light, rng)
        taken += collection.add(photographed(scene, seen, rng, distractors=not spec.alone))
    for scene in (*near_misses(spec, rng), *islice(near_misses(spec, rng), 4)):
        alike = (scene.weather == "night") == (seen.light == "night")
        light = seen.light if alike else random_light(rng, scene.weather)
        collection.add(photographed(scene, Conditions(seen.size, light, seen.occlusion), rng))


def _without_match(number: int, scenes: Iterable[WildScene], name: str, rng: Random) -> list[WildQuery]:
    """Queries that no photograph matches, though one shows all of each but one part."""
    standing = list(scenes)
    by_key = {scene.key(): scene for scene in standing}
    matches = matcher(by_key)
    queries: dict[str, WildQuery] = {}
    while len(queries) < number:
        turn, part = divmod(len(queries), len(FAILING))
        spec, scene = draw_failing(standing, list(FAILING)[part], FACTS[1][turn % len(FACTS[1])], rng)
        seen = scene.conditions(spec.subject.species)
        if seen is None or seen.size != list(BANDS)[len(queries) % len(BANDS)] or matches(spec):
            continue
        text = Words(rng).spec(spec)
        query = WildQuery(f"{name[0]}x{len(queries):03d}", text, spec, *classify(spec), conditions=seen)
        queries.setdefault(text, query)
    return list(queries.values())


@cache
def load_wild(name: str) -> Split:
    """A split, made from its name: always the same. The queries without a match come last.

    Raises `BenchmarkError` where the queries made here are not the published ones.
    """
    matched, unmatched, size = SIZES[name]
    rng = Random(f"fieldnotes-wild-{name}-1")
    asked = _asked(matched, rng)
    collection = _Collection({spec: seen for spec, (_, seen) in asked.items()})
    for spec, (_, seen) in asked.items():
        _planted(spec, seen, collection, rng)
    while len(collection.scenes) < size:
        scene = random_scene(rng)
        collection.add(photographed(scene, random_conditions(rng, random_light(rng, scene.weather)), rng))
    scenes = list(collection.scenes.values())
    rng.shuffle(scenes)
    queries = [
        WildQuery(f"{name[0]}w{at:03d}", text, spec, *classify(spec), conditions=seen)
        for at, (spec, (text, seen)) in enumerate(asked.items())
    ]
    queries += _without_match(unmatched, scenes, name, rng)
    by_id: dict[str, Scene] = {str(at): scene for at, scene in enumerate(scenes, 1)}
    split = judged(f"wild-{name}", by_id, queries)
    if checksum(split) != CHECKSUMS[name]:
        raise BenchmarkError(
            f"FieldNotes-Wild's queries made here for {name} differ from the published ones; install Fieldscope again"
        )
    return split

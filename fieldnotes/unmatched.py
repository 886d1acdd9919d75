"""FieldNotes-Unmatched: queries that no picture of a standing collection matches, though some picture has all parts of
the query but one.

The collections are those of the text queries. A query is drawn from one of their scenes, one part of it is changed, and
it is kept if no scene of the collection matches it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import cache
from typing import Any, TypeVar

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.fieldnotes.facts import Part, Spec, find
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.queries import BenchmarkQuery, Split, classify, judged, load_split, matcher
from fieldscope.fieldnotes.sampling import other, random_spec
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, ITEMS, POSES, SPECIES, Scene

Kind = TypeVar("Kind", bound=Scene)

SIZES = {"validation": ("validation", 25), "development": ("validation", 50), "test": ("test", 50)}
"""The collection that is searched, and the number of queries, per split."""

FACTS = (2, (4, 5, 6))
"""The least number of facts of a query, and the most: few and many in turn."""

CHECKSUMS = {
    "validation": "11cb2d631e86f05ad42f92bc0af82d74df005ab14c318a26e613b8fbb4bab979",
    "development": "cfbb0e4446ec5a451e06da80f2c67aa09da339dd714769d4142e8978065aabc7",
    "test": "1613722c6f1fb1771693303119c5ade9b9eca7d0a049e1ab9ed533186bd94137",
}
"""SHA-256 over the queries of each split: ids, texts and facts."""


def _colour(spec: Spec, scene: Scene, rng: random.Random) -> Spec | None:
    """Another colour of the subject, which no other group of the scene has."""
    if not spec.subject.colour:
        return None
    return replace(spec, subject=replace(spec.subject, colour=other(rng, COLOURS, *[g.colour for g in scene.groups])))


def _binding(spec: Spec, scene: Scene, rng: random.Random) -> Spec | None:
    """What the scene shows of the companion, said of the subject instead."""
    companion = find(scene, spec.companion.species) if spec.companion else None
    subject = find(scene, spec.subject.species)
    if companion is None or subject is None or spec.companion is None or spec.more:
        return None
    options: dict[str, Any] = {"colour": companion.colour}
    if companion.pose not in ("resting", subject.pose):
        options["pose"] = companion.pose
    if companion.item not in ("none", subject.item):
        options["item"] = companion.item
    name = rng.choice(list(options))
    said, unsaid = {name: options[name]}, dict[str, Any]({name: ""})
    part = Part(spec.subject.species, count=spec.subject.count, **said)
    return replace(spec, subject=part, companion=replace(spec.companion, **unsaid))


def _habitat(spec: Spec, scene: Scene, rng: random.Random) -> Spec | None:
    """Another habitat."""
    return replace(spec, habitat=other(rng, HABITATS, scene.habitat)) if spec.habitat else None


def _action(spec: Spec, scene: Scene, rng: random.Random) -> Spec | None:
    """Another pose of the subject, or another thing that it carries."""
    part = spec.subject
    if part.pose:
        return replace(spec, subject=replace(part, pose=other(rng, POSES, "resting", part.pose)))
    if part.item:
        return replace(spec, subject=replace(part, item=other(rng, ITEMS, "none", part.item)))
    return None


def _company(spec: Spec, scene: Scene, rng: random.Random) -> Spec | None:
    """Another animal beside the subject, of which nothing else is said."""
    if spec.companion is None or spec.more:
        return None
    return replace(spec, companion=Part(other(rng, tuple(SPECIES), *[group.species for group in scene.groups])))


FAILING: dict[str, Callable[[Spec, Scene, random.Random], Spec | None]] = {
    "Colour": _colour,
    "Binding": _binding,
    "Habitat": _habitat,
    "Action": _action,
    "Company": _company,
}
"""Which part of a query fails: it is the supercategory of the query. "Binding" is an attribute of the companion that
is said of the subject. Each function changes what is said of a scene in that part, or gives None where it can't."""


def draw_failing(scenes: Sequence[Kind], failing: str, most: int, rng: random.Random) -> tuple[Spec, Kind]:
    """A query of at most so many facts that one of the scenes matches but for the part that fails, and that scene."""
    least = FACTS[0]
    while True:
        scene = rng.choice(scenes)
        spec = FAILING[failing](random_spec(scene, rng, least, most), scene, rng)
        if spec and least <= len(spec.facts()) <= most and spec.satisfied(scene) == len(spec.facts()) - 1:
            return spec, scene


def checksum(split: Split) -> str:
    """SHA-256 over the queries of a split: ids, texts and facts."""
    return fingerprint([[query.id, query.text, *map(astuple, query.spec.facts())] for query in split.queries])


@cache
def load_unmatched(name: str) -> Split:
    """Queries without a match, made from the split's name: always the same. The split has the name of its collection.

    Raises `BenchmarkError` where the queries made here are not the published ones.
    """
    collection, number = SIZES[name]
    standing = load_split(collection)
    scenes, matches = list(standing.scenes.values()), matcher(standing.scenes)
    rng = random.Random(f"fieldnotes-unmatched-{name}-1")
    queries: dict[str, BenchmarkQuery] = {}
    while len(queries) < number:
        turn, part = divmod(len(queries), len(FAILING))
        failing, most = list(FAILING)[part], FACTS[1][turn % len(FACTS[1])]
        spec, _ = draw_failing(scenes, failing, most, rng)
        if not matches(spec):
            text, query_id = Words(rng).spec(spec), f"{name[0]}u{len(queries):03d}"
            queries.setdefault(text, BenchmarkQuery(query_id, text, spec, failing, classify(spec)[1]))
    split = judged(collection, standing.scenes, queries.values())
    if checksum(split) != CHECKSUMS[name]:
        raise BenchmarkError(
            f"the queries without a match made here for {name} differ from the published ones; install Fieldscope again"
        )
    return split

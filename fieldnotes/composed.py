"""FieldNotes-Composed: a reference image and a change in words, such as "the same, but on snow".

A relevant image shows all that can be said of the reference, with the change; what cannot be said of it (an animal at
rest is in no pose, one without an item has none) is open. In shape it follows CIRCO (arXiv 2303.15247): several
relevant images a query, and a collection in which the reference's likes are the trap.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache

from fieldscope.fieldnotes.facts import Fact, Spec, describe
from fieldscope.fieldnotes.queries import (
    CATEGORIES,
    SUPERCATEGORIES,
    BenchmarkQuery,
    Split,
    collect,
    is_novel,
    judged,
    matching_scene,
    near_misses,
)
from fieldscope.fieldnotes.sampling import new_seed, random_scene
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.text_tasks import change_words, changes

SIZES = {"validation": (30, 500), "test": (80, 1200)}
"""Queries and images per split."""

FACTS = (5, 9)
"""The least and the most that can be said of a reference image."""

COMPANION = 0.6
"""How often a drawn reference has two groups. Few of those have no more than `FACTS` to say."""

RELEVANT = (2, 5)
UNCHANGED = 2


@dataclass(frozen=True)
class _Draw:
    """A reference, the facts of a match, and the new fact with the words of the change."""

    reference: Scene
    spec: Spec
    fact: Fact
    text: str


def classify_change(fact: Fact) -> tuple[str, str]:
    """The supercategory and category of a composed query, after the fact that it changes."""
    match fact.kind:
        case "colour":
            return "Appearance", "Colour"
        case "behaviour":
            return "Behavior", CATEGORIES[fact.value]
        case "context" | "absence":
            return "Context", CATEGORIES[fact.value]
        case "habitat" | "weather":
            return "Context", fact.kind.capitalize()
    return "Species", "Abundance" if fact.kind == "count" else "Company"


def _draw(rng: random.Random, supercategory: str, novel: bool) -> _Draw:
    """A change of one supercategory; a novel one leads to a combination that no training scene shows."""
    while True:
        reference = random_scene(rng, COMPANION)
        seen = describe(reference)
        if not FACTS[0] <= len(seen.facts()) <= FACTS[1]:
            continue
        options = [c for c in changes(seen, rng) if classify_change(c[1])[0] == supercategory]
        spec, fact, _, said = rng.choice(options)
        if is_novel(spec) or not novel:
            return _Draw(reference, spec, fact, change_words(said, rng))


def _around(draw: _Draw, rng: random.Random) -> list[Scene]:
    """The reference, likes of it, matches, and for each fact of a match a scene without it."""
    scenes = [draw.reference, *(replace(draw.reference, seed=new_seed(rng)) for _ in range(UNCHANGED))]
    scenes += [matching_scene(draw.spec, rng) for _ in range(rng.randint(*RELEVANT))]
    return [*scenes, *near_misses(draw.spec, rng)]


@cache
def load_composed(split: str) -> Split:
    """A split of the composed task, made from its name: always the same."""
    number, size = SIZES[split]
    name = f"composed-{split}"
    rng = random.Random(f"fieldnotes-{name}-1")
    draws = [_draw(rng, SUPERCATEGORIES[i % 4], novel=i // 4 % 2 == 0) for i in range(number)]
    scenes = collect([scene for draw in draws for scene in _around(draw, rng)], size, rng)
    ids = {scene.key(): image_id for image_id, scene in scenes.items()}
    queries = (
        BenchmarkQuery(f"c{i:03d}", draw.text, draw.spec, *classify_change(draw.fact), ids[draw.reference.key()])
        for i, draw in enumerate(draws)
    )
    return judged(name, scenes, queries)

"""FieldNotes-Dialogue: a caption that says little, and rounds of question and answer that say the rest.

As in ChatIR (arXiv 2305.20062), what is looked for is searched again after every round: a dialogue of R rounds is R + 1
queries, from the caption alone to all that was said, and relevant to each is what matches the whole of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import islice

from fieldscope.core.types import Turn
from fieldscope.fieldnotes.facts import Spec
from fieldscope.fieldnotes.queries import (
    SUPERCATEGORIES,
    BenchmarkQuery,
    Split,
    classify,
    collect,
    draw_spec,
    judged,
    matching_scene,
    near_misses,
)
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.text_tasks import converse

SIZES = {"validation": (30, 500), "test": (80, 1200)}
"""Dialogues and images per split."""

FACTS = (3, 7)
ROUNDS = (2, 5)
RELEVANT = (2, 5)
SECOND_MISSES = 4


def _draw(rng: random.Random, supercategory: str, novel: bool) -> tuple[Spec, str, tuple[Turn, ...]]:
    while True:
        spec = draw_spec(rng, supercategory, novel, *FACTS)
        text, rounds, _ = converse(spec, rng)
        if ROUNDS[0] <= len(rounds) <= ROUNDS[1]:
            return spec, text, rounds


def _around(spec: Spec, rng: random.Random) -> Iterator[Scene]:
    """Matches, and scenes in which one fact is wrong."""
    for _ in range(rng.randint(*RELEVANT)):
        yield matching_scene(spec, rng)
    yield from near_misses(spec, rng)
    yield from islice(near_misses(spec, rng), SECOND_MISSES)


@cache
def load_dialogue(split: str) -> Split:
    """A split of the dialogue task, made from its name: always the same. A query's id ends in its round."""
    number, size = SIZES[split]
    name = f"dialogue-{split}"
    rng = random.Random(f"fieldnotes-{name}-1")
    draws = [_draw(rng, SUPERCATEGORIES[i % 4], novel=i // 4 % 2 == 0) for i in range(number)]
    scenes = collect([scene for spec, _, _ in draws for scene in _around(spec, rng)], size, rng)
    queries = (
        BenchmarkQuery(f"d{i:03d}.{done}", text, spec, *classify(spec), dialogue=rounds[:done])
        for i, (spec, text, rounds) in enumerate(draws)
        for done in range(len(rounds) + 1)
    )
    return judged(name, scenes, queries)

"""What the LMM is asked in one row of training: a few pictures and as many questions as fit behind them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fieldscope.fieldnotes.facts import Fact, Spec
from fieldscope.fieldnotes.sampling import mutate, random_scene, random_spec
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.tasks import (
    Segment,
    ask_best,
    ask_caption,
    ask_fact,
    ask_joint,
    ask_open,
    ask_query,
    ask_reason,
    near_spec,
    random_fact,
)
from fieldscope.fieldnotes.text_tasks import (
    change_words,
    changes,
    decompose,
    query_request,
    random_request,
    synthesize,
    synthesize_again,
)

LABELS = {
    2: (("a:", "b:"), ("image a:", "image b:"), ("first image, a:", "second image, b:"), ("image a.", "image b.")),
    3: (
        ("reference:", "a:", "b:"),
        ("reference image:", "image a:", "image b:"),
        ("the reference:", "image a.", "image b."),
    ),
    4: (
        ("a:", "b:", "c:", "d:"),
        ("image a:", "image b:", "image c:", "image d:"),
        ("image a.", "image b.", "image c.", "image d."),
    ),
}
SINGLE = {"fact": 0.42, "spec_fact": 0.16, "query": 0.2, "open": 0.1, "joint": 0.04, "reason": 0.04, "caption": 0.04}


@dataclass(frozen=True)
class Row:
    """Pictures (by number), the label said before each ("" for none), and an endless supply of segments."""

    pictures: tuple[int, ...]
    labels: tuple[str, ...]
    segments: Iterator[Segment]


def spec_fact(scene: Scene, spec: Spec, rng: random.Random) -> Fact:
    """One fact of a query about an image: every other time one that fails, where one does."""
    facts = spec.facts()
    failing = [fact for fact in facts if not fact.holds(scene)]
    return rng.choice(failing) if failing and rng.random() < 0.5 else rng.choice(facts)


def single_segments(scene: Scene, mined: Sequence[Spec], rng: random.Random) -> Iterator[Segment]:
    """Questions about one picture. `mined` are training queries for which the CLIP ranks it high."""

    def spec() -> Spec:
        return rng.choice(mined) if mined and rng.random() < 0.3 else near_spec(scene, rng)

    while True:
        task = rng.choices(list(SINGLE), list(SINGLE.values()))[0]
        if task == "fact":
            yield ask_fact(scene, random_fact(scene, rng), rng)
        elif task == "spec_fact":
            yield ask_fact(scene, spec_fact(scene, spec(), rng), rng)
        elif task == "query":
            yield ask_query(scene, spec(), rng)
        elif task == "open":
            yield ask_open(scene, rng)
        elif task == "joint":
            facts = list(spec().facts()) if rng.random() < 0.6 else []
            facts = facts or [random_fact(scene, rng) for _ in range(rng.randint(2, 6))]
            yield ask_joint(scene, facts, rng)
        elif task == "reason":
            yield ask_reason(scene, spec(), rng)
        else:
            yield ask_caption(scene, rng)


def best_segments(scenes: Sequence[Scene], rng: random.Random) -> Iterator[Segment]:
    """Which of two or four pictures is best: mostly queries that one of them matches, sometimes both or none."""
    while True:
        kind = rng.random()
        target = rng.choice(scenes) if kind < 0.88 else mutate(rng.choice(scenes), rng)
        yield from _decided(scenes, target, rng)


def reference_segments(scenes: Sequence[Scene], rng: random.Random) -> Iterator[Segment]:
    """Which of two pictures is the reference changed as asked: the first scene is the reference."""
    reference, *rest = scenes
    full = random_spec(reference, rng, 3, 7)
    while True:
        if rng.random() < 0.4:
            full = random_spec(reference, rng, 2, 7)
        options = changes(full, rng)
        real = [option for option in options if any(option[1].holds(scene) for scene in rest)]
        spec, _, _, said = rng.choice(real if real and rng.random() < 0.85 else options)
        segment = ask_best(rest, spec, rng, change_words(said, rng))
        if len(segment.options) == 1 or rng.random() < 0.2:
            yield segment


def _decided(scenes: Sequence[Scene], target: Scene, rng: random.Random) -> Iterator[Segment]:
    """A query about `target` with one best answer where three draws give one; open ones now and then."""
    for _ in range(3):
        segment = ask_best(scenes, random_spec(target, rng, 1, 7), rng)
        if len(segment.options) == 1 or rng.random() < 0.15:
            yield segment
            return


def text_segments(rng: random.Random) -> Iterator[Segment]:
    """Requests turned into structured answers, without pictures."""
    while True:
        request, draw = random_request(rng), rng.random()
        if draw < 0.5:
            yield synthesize(request, rng)
        else:
            yield synthesize_again(request, rng) if draw < 0.6 else decompose(request, rng)


def sample_texts(rng: random.Random, n: int) -> Iterator[str]:
    """All that prompts and answers are made of, for the vocabulary."""
    yield from (label for group in LABELS.values() for style in group for label in style)
    for _ in range(n):
        scene = random_scene(rng)
        scenes = [scene, *(mutate(scene, rng) for _ in range(3))]
        rows = (
            single_segments(scene, [], rng),
            best_segments(scenes[:2], rng),
            best_segments(scenes, rng),
            reference_segments(scenes[:3], rng),
            text_segments(rng),
        )
        for row in rows:
            segment = next(row)
            yield segment.prompt
            yield from segment.options
        yield f" {query_request(random_spec(scene, rng), rng).text}"

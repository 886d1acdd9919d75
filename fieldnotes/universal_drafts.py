"""The queries of FieldNotes-Universal, each with documents that match it and near misses, by the type of their task."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fieldscope.fieldnotes.facts import Fact, Part, Spec, describe
from fieldscope.fieldnotes.grammar import CANON, Words
from fieldscope.fieldnotes.queries import SUPERCATEGORIES, draw_spec, matching_scene, near_misses
from fieldscope.fieldnotes.sampling import mutate, new_seed, random_scene
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.text_tasks import ask, change_words, changes
from fieldscope.fieldnotes.universal_records import UniversalDocument

ASKED = ("colour", "count", "behaviour", "context", "habitat", "weather")
"""The kinds of fact that a question about a picture is about."""

_FACTS = (5, 9)  # of a picture that a change starts from
_LIKES = 3


@dataclass(frozen=True)
class Draft:
    """A query before its pool has ids: `matches` says which documents are relevant."""

    text: str
    picture: Scene | None
    matches: Callable[[UniversalDocument], bool]
    documents: Sequence[UniversalDocument]


def _described(
    as_document: Callable[[Scene], UniversalDocument],
) -> Callable[[random.Random, int], Iterator[Draft]]:
    """Texts that ask for a scene, among documents about matching scenes and near misses."""

    def drafts(rng: random.Random, number: int) -> Iterator[Draft]:
        for at in range(number):
            spec = draw_spec(rng, SUPERCATEGORIES[at % 4], novel=at % 2 == 0)
            scenes = [matching_scene(spec, rng) for _ in range(rng.randint(1, 3))]
            scenes += list(near_misses(spec, rng))[:_LIKES]
            yield Draft(
                Words(rng).spec(spec),
                None,
                _tells_of(spec),
                [as_document(scene) for scene in scenes],
            )

    return drafts


def _captioned(rng: random.Random, number: int) -> Iterator[Draft]:
    """Pictures, and the captions of them and of scenes that differ in one fact."""
    for _ in range(number):
        scene = random_scene(rng)
        likes = (scene, *(mutate(scene, rng) for _ in range(_LIKES)))
        yield Draft("", scene, _same_content(scene), [as_caption(each) for each in likes])


def _same_scene(rng: random.Random, number: int) -> Iterator[Draft]:
    """Pictures, and others of the same scene and of scenes that differ in one fact."""
    for _ in range(number):
        scene = random_scene(rng)
        again = [replace(scene, seed=new_seed(rng)) for _ in range(rng.randint(1, 2))]
        likes = [mutate(scene, rng) for _ in range(_LIKES)]
        yield Draft("", scene, _same_content(scene), [as_picture(each) for each in (*again, *likes)])


def _changed(rng: random.Random, number: int) -> Iterator[Draft]:
    """Pictures with a change in words, among pictures of what was not changed and of near misses."""
    made = 0
    while made < number:
        reference = random_scene(rng, 0.6)
        seen = describe(reference)
        if not _FACTS[0] <= len(seen.facts()) <= _FACTS[1]:
            continue
        spec, _, _, said = rng.choice(changes(seen, rng))
        scenes = [matching_scene(spec, rng) for _ in range(rng.randint(1, 3))]
        scenes += [replace(reference, seed=new_seed(rng)), *list(near_misses(spec, rng))[:_LIKES]]
        made += 1
        yield Draft(
            change_words(said, rng),
            reference,
            _tells_of(spec),
            [as_picture(scene) for scene in scenes],
        )


def _questioned(
    as_document: Callable[[Scene, str], UniversalDocument],
) -> Callable[[random.Random, int], Iterator[Draft]]:
    """Pictures with a question about one fact, and statements that answer it rightly and wrongly."""

    def drafts(rng: random.Random, number: int) -> Iterator[Draft]:
        made = 0
        while made < number:
            scene = random_scene(rng)
            group = rng.choice(scene.groups)
            facts = [
                fact for fact in describe(scene).facts() if fact.kind in ASKED and fact.species in ("", group.species)
            ]
            if not facts:
                continue
            fact = rng.choice(facts)
            others = [each for _ in range(_LIKES) if (each := _other_value(fact, group.species, rng)) is not None]
            statements = {statement(group.species, each): each for each in (fact, *others)}
            made += 1
            yield Draft(
                ask(fact, Words(rng), {})[0],
                scene,
                _says(statement(group.species, fact)),
                [
                    as_document(matching_scene(stated(group.species, each), rng), text)
                    for text, each in statements.items()
                ],
            )

    return drafts


def statement(species: str, fact: Fact) -> str:
    """A fact about an animal as a phrase: "a red crab", "a crab in the snow"."""
    return CANON.spec(stated(species, fact))


def stated(species: str, fact: Fact) -> Spec:
    fields = {"colour": "colour", "behaviour": "pose", "context": "item"}
    if fact.kind == "count":
        return Spec(Part(species, count=int(fact.value)))
    if fact.kind in fields:
        return Spec(Part(species, **{fields[fact.kind]: fact.value}))  # type: ignore[arg-type]
    return Spec(Part(species), **{fact.kind: fact.value})  # type: ignore[arg-type]


def _other_value(fact: Fact, species: str, rng: random.Random) -> Fact | None:
    """The same kind of fact as another scene has it; None where a scene has none."""
    scene = random_scene(rng)
    spec = describe(replace(scene, groups=(replace(scene.groups[0], species=species),)))
    found = next((each for each in spec.facts() if each.kind == fact.kind), None)
    return found if found is not None and found.value != fact.value else None


def _tells_of(spec: Spec) -> Callable[[UniversalDocument], bool]:
    return lambda document: spec.matches(document.about)


def _says(text: str) -> Callable[[UniversalDocument], bool]:
    return lambda document: document.text == text


def _same_content(scene: Scene) -> Callable[[UniversalDocument], bool]:
    spec = describe(scene)
    return lambda document: describe(document.about) == spec or document.about.content() == scene.content()


def as_picture(scene: Scene) -> UniversalDocument:
    return UniversalDocument(scene, picture=scene)


def as_caption(scene: Scene) -> UniversalDocument:
    return UniversalDocument(scene, text=CANON.spec(describe(scene)))


def as_captioned_picture(scene: Scene) -> UniversalDocument:
    return UniversalDocument(scene, picture=scene, text=CANON.spec(describe(scene)))


DRAFTS: Mapping[str, Callable[[random.Random, int], Iterable[Draft]]] = {
    "mscoco_task0": _described(as_picture),
    "webqa_task1": _described(as_caption),
    "edis_task2": _described(as_captioned_picture),
    "mscoco_task3": _captioned,
    "nights_task4": _same_scene,
    "infoseek_task6": _questioned(lambda scene, text: UniversalDocument(scene, text=text)),
    "cirr_task7": _changed,
    "infoseek_task8": _questioned(lambda scene, text: UniversalDocument(scene, picture=scene, text=text)),
}

"""FieldNotes-Universal's training queries: the eight types over few pictures, none of them of a scene that is scored.

A family is a scene in two pictures, the scene after a change, and the scene with one other fact. Pictures, captions and
captioned pictures of all families are one pool, so that what a query wants lies there in the other modalities, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from fieldscope.fieldnotes.facts import Spec, describe, is_training_scene
from fieldscope.fieldnotes.grammar import Words
from fieldscope.fieldnotes.queries import matching_scene
from fieldscope.fieldnotes.sampling import mutate, new_seed, random_scene, random_spec
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.text_tasks import ask, change_words, changes
from fieldscope.fieldnotes.universal_drafts import (
    ASKED,
    as_caption,
    as_captioned_picture,
    as_picture,
    stated,
    statement,
)
from fieldscope.fieldnotes.universal_records import UniversalDocument, UniversalQuery, UniversalSplit
from fieldscope.fieldnotes.universal_tasks import TASKS, UniversalTask

FAMILIES = 320
TEXTS = 640
"""Scenes that the set of texts has captions of, and no pictures."""

_TASKS = {task.name: task for task in TASKS}
_TRIES = 50


@dataclass(frozen=True)
class _Family:
    """A scene, another picture of it, the scene after a change, and one that differs in another fact."""

    scene: Scene
    again: Scene
    changed: Scene
    like: Scene
    change: Spec
    said: str

    @property
    def scenes(self) -> tuple[Scene, ...]:
        return self.scene, self.again, self.changed, self.like


class _Shown:
    """The scenes that a split shows, by the species in them."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._with: dict[str, list[Scene]] = {}
        for scene in scenes:
            for group in scene.groups:
                self._with.setdefault(group.species, []).append(scene)

    def matching(self, spec: Spec) -> list[Scene]:
        """Those that a description is true of."""
        facts = spec.facts()
        return [scene for scene in self._with[spec.subject.species] if all(fact.holds(scene) for fact in facts)]


class _Pool:
    """Documents and queries, numbered as they come: a document that another task has, too, keeps that one's id."""

    def __init__(self) -> None:
        self.ids: dict[UniversalDocument, str] = {}
        self.queries: list[UniversalQuery] = []
        self._numbers: dict[int, int] = {}
        self._asked: dict[int, int] = {}

    def add(self, task: UniversalTask, *documents: UniversalDocument) -> None:
        for document in documents:
            if document not in self.ids:
                self.ids[document] = self._next(self._numbers, task)

    def ask(self, task: UniversalTask, text: str, picture: Scene | None, matches: Iterable[UniversalDocument]) -> None:
        relevant = frozenset(self.ids[document] for document in matches)
        self.queries.append(UniversalQuery(self._next(self._asked, task), task, text, picture, relevant))

    def split(self, name: str) -> UniversalSplit:
        documents = {number: document for document, number in self.ids.items()}
        return UniversalSplit(name, documents, {"union": tuple(documents)}, tuple(self.queries))

    @staticmethod
    def _next(numbers: dict[int, int], task: UniversalTask) -> str:
        numbers[task.dataset] = numbers.get(task.dataset, 0) + 1
        return f"{task.dataset}:{numbers[task.dataset]}"


def make_training(scored: frozenset[Scene], families: int = FAMILIES) -> UniversalSplit:
    """The training split, without any of these scenes (`plain`): always the same."""
    rng = random.Random("fieldnotes-universal-training-1")
    made = [_family(rng, scored) for _ in range(families)]
    scenes = [scene for family in made for scene in family.scenes]
    pool, shown = _Pool(), _Shown(scenes)
    for scene in scenes:
        pool.add(_TASKS["mscoco_task0"], as_picture(scene))
        pool.add(_TASKS["webqa_task1"], _bare(as_caption(scene)))
        pool.add(_TASKS["edis_task2"], as_captioned_picture(scene))
    for name, document in _DESCRIBED.items():
        for family in made:
            spec = random_spec(rng.choice((family.scene, family.changed)), rng, 2, 6)
            matches = map(document, shown.matching(spec))
            pool.ask(_TASKS[name], Words(rng).spec(spec), None, matches)
    for family in made:
        pool.ask(_TASKS["mscoco_task3"], "", family.scene, [_bare(as_caption(family.scene))])
        pool.ask(_TASKS["nights_task4"], "", family.scene, [as_picture(family.again)])
        changed = map(as_picture, shown.matching(family.change))
        pool.ask(_TASKS["cirr_task7"], change_words(family.said, rng), family.scene, changed)
    _ask_questions(rng, pool, shown, [family.scene for family in made])
    return pool.split("universal-training")


def make_texts(scored: frozenset[Scene], number: int = TEXTS) -> UniversalSplit:
    """Descriptions and captions alone, for training on texts: always the same."""
    rng = random.Random("fieldnotes-universal-texts-1")
    task, pool = _TASKS["webqa_task1"], _Pool()
    scenes = [_scene(scored, partial(random_scene, rng)) for _ in range(number)]
    for scene in scenes:
        pool.add(task, _bare(as_caption(scene)), _bare(as_caption(mutate(scene, rng))))
    told = _Shown(document.about for document in pool.ids)
    captions = {document.about: document for document in pool.ids}
    for scene in scenes:
        spec = random_spec(scene, rng, 2, 6)
        pool.ask(task, Words(rng).spec(spec), None, (captions[about] for about in told.matching(spec)))
    return pool.split("universal-texts")


def _family(rng: random.Random, scored: frozenset[Scene]) -> _Family:
    while True:
        scene = _scene(scored, partial(random_scene, rng))
        spec, _, _, said = rng.choice(changes(describe(scene), rng))
        changed = next(_training(scored, partial(matching_scene, spec, rng)), None)
        if changed is not None:
            like = _scene(scored, partial(mutate, scene, rng))
            return _Family(scene, replace(scene, seed=new_seed(rng)), changed, like, spec, said)


def _scene(scored: frozenset[Scene], draw: Callable[[], Scene]) -> Scene:
    while (scene := next(_training(scored, draw), None)) is None:
        pass
    return scene


def _training(scored: frozenset[Scene], draw: Callable[[], Scene]) -> Iterator[Scene]:
    """Drawn scenes that may be trained on."""
    for _ in range(_TRIES):
        scene = draw()
        if is_training_scene(scene) and plain(scene) not in scored:
            yield scene


def _ask_questions(rng: random.Random, pool: _Pool, scenes: _Shown, asked: list[Scene]) -> None:
    """Questions about scenes, and the statements that answer them, alone and with a picture of which they are true."""
    questions: list[tuple[Scene, str, str]] = []
    with_text: dict[str, dict[str, list[UniversalDocument]]] = {"infoseek_task6": {}, "infoseek_task8": {}}
    for scene in asked:
        group = rng.choice(scene.groups)
        facts = [fact for fact in describe(scene).facts() if fact.kind in ASKED and fact.species in ("", group.species)]
        fact = rng.choice(facts)
        text, spec = statement(group.species, fact), stated(group.species, fact)
        shown = rng.choice(scenes.matching(spec))
        answers = {
            "infoseek_task6": UniversalDocument(plain(shown), text=text),
            "infoseek_task8": UniversalDocument(shown, picture=shown, text=text),
        }
        for name, document in answers.items():
            same = with_text[name].setdefault(text, [])
            if document not in same and (document.picture or not same):
                pool.add(_TASKS[name], document)
                same.append(document)
        questions.append((scene, ask(fact, Words(rng), {})[0], text))
    for name, documents in with_text.items():
        for scene, question, text in questions:
            pool.ask(_TASKS[name], question, scene, documents[text])


def plain(scene: Scene) -> Scene:
    """A scene as far as words tell of it: without its nuisance seed, its groups in a fixed order."""
    return replace(scene, seed=0, groups=tuple(sorted(scene.groups, key=repr)))


def _bare(document: UniversalDocument) -> UniversalDocument:
    """A text is about what its words say, wherever it stands: texts of scenes of one content are one document."""
    return replace(document, about=plain(document.about))


_DESCRIBED: dict[str, Callable[[Scene], UniversalDocument]] = {
    "mscoco_task0": as_picture,
    "webqa_task1": lambda scene: _bare(as_caption(scene)),
    "edis_task2": as_captioned_picture,
}

"""FieldNotes-Universal's training split: right positives, in all eight types, and no scene that is scored."""

from __future__ import annotations

from collections import Counter

import pytest

from fieldscope.fieldnotes.facts import describe, is_training_scene
from fieldscope.fieldnotes.universal_records import UniversalSplit
from fieldscope.fieldnotes.universal_tasks import TASKS
from fieldscope.fieldnotes.universal_training import make_texts, make_training, plain

FAMILIES = 8


@pytest.fixture(scope="module")
def split() -> UniversalSplit:
    return make_training(frozenset(), FAMILIES)


def test_each_type_asks_about_each_family_for_documents_of_its_kind(split: UniversalSplit) -> None:
    assert Counter(query.task.name for query in split.queries) == {task.name: FAMILIES for task in TASKS}
    for query in split.queries:
        assert query.relevant
        assert {split.documents[did].modality for did in query.relevant} == {query.task.candidate}
        assert bool(query.picture) == ("image" in query.task.query) and bool(query.text) == ("text" in query.task.query)
    assert all(is_training_scene(scene) for scene in split.scenes.values())


def test_what_is_wanted_lies_in_the_pool_in_the_other_modalities_too(split: UniversalSplit) -> None:
    documents = split.documents.values()
    shown, told = ({plain(d.about) for d in documents if d.modality == kind} for kind in ("image", "text"))
    assert shown <= told
    assert len({(d.picture, d.text) for d in documents}) == len(documents)


def test_another_picture_of_a_scene_is_its_positive_and_scored_scenes_are_left_out(split: UniversalSplit) -> None:
    again = next(query for query in split.queries if query.task.name == "nights_task4")
    (match,) = (split.documents[did] for did in again.relevant)
    assert again.picture is not None and match.picture not in (None, again.picture)
    assert describe(match.about) == describe(again.picture)
    shown = frozenset(map(plain, split.scenes.values()))
    assert not shown & set(map(plain, make_training(shown, FAMILIES).scenes.values()))


def test_texts_have_no_pictures_and_know_every_caption_that_matches() -> None:
    texts = make_texts(frozenset(), 30)
    assert not texts.scenes and {each.modality for each in texts.documents.values()} == {"text"}
    assert all(query.relevant for query in texts.queries)

"""FieldNotes-Composed: what its references, changes and collections hold."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fieldscope.core.fingerprint import fingerprint
from fieldscope.fieldnotes.collection import CHECKSUMS, read_split
from fieldscope.fieldnotes.composed import FACTS, SIZES, UNCHANGED, classify_change, load_composed
from fieldscope.fieldnotes.facts import Fact, describe
from fieldscope.fieldnotes.queries import SUPERCATEGORIES, BenchmarkQuery, Split, is_novel
from fieldscope.fieldnotes.sampling import training_family
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.vocabulary import unknown_words


@pytest.fixture(scope="module", params=["validation", "test"])
def split(request: pytest.FixtureRequest) -> Split:
    return load_composed(request.param)


def reference(split: Split, query: BenchmarkQuery) -> Scene:
    return split.scenes[query.reference_image or ""]


def test_a_split_is_as_large_as_promised(split: Split) -> None:
    task, name = split.name.split("-")
    assert task == "composed"
    assert (len(split.queries), len(split.scenes)) == SIZES[name]
    assert len(split.queries) >= {"validation": 30, "test": 80}[name]
    assert len({scene.key() for scene in split.scenes.values()}) == len(split.scenes)
    assert split == read_split(name, "composed")


def test_a_split_is_made_anew_the_same() -> None:
    assert load_composed.__wrapped__("validation") == load_composed("validation")


def test_a_change_replaces_at_least_one_fact_of_the_reference_and_keeps_the_rest(split: Split) -> None:
    for query in split.queries:
        seen, wanted = set(describe(reference(split, query)).facts()), set(query.spec.facts())
        assert FACTS[0] <= len(seen) <= FACTS[1]
        assert len(wanted - seen) == 1, query.text
        (new,) = wanted - seen
        gone = seen - wanted
        if new.kind == "alone":  # the companion leaves with all its facts
            assert {fact.species for fact in gone} == {next(f.species for f in gone if f.kind == "subject")}
        elif new.kind == "absence":
            assert gone == {Fact("context", new.species, new.value)}
        else:
            assert {fact.kind for fact in gone} <= {new.kind}
            assert len(gone) <= 1
        assert (query.supercategory, query.category) == classify_change(new)


def test_what_is_relevant_follows_from_the_scenes(split: Split) -> None:
    for query in split.queries:
        relevant = split.relevant[query.id]
        assert relevant == {i for i, scene in split.scenes.items() if query.spec.matches(scene)}
        assert 2 <= len(relevant) <= 10
        assert query.reference_image not in relevant


def test_every_query_has_traps(split: Split) -> None:
    holding = {
        fact: {i for i, scene in split.scenes.items() if fact.holds(scene)}
        for fact in {fact for query in split.queries for fact in query.spec.facts()}
    }
    for query in split.queries:
        shown = reference(split, query).content()
        alike = [i for i, scene in split.scenes.items() if scene.content() == shown and i != query.reference_image]
        assert len(alike) >= UNCHANGED
        assert not split.relevant[query.id] & set(alike)
        facts = query.spec.facts()
        held = Counter(i for fact in facts for i in holding[fact])
        near = {i for i, number in held.items() if number == len(facts) - 1}
        broken = {fact for fact in facts if near - holding[fact]}
        assert len(broken) >= len(facts) - 2, query.text


def test_groups_are_even_and_half_is_novel(split: Split) -> None:
    groups = Counter(query.supercategory for query in split.queries)
    assert set(groups) == set(SUPERCATEGORIES)
    assert max(groups.values()) - min(groups.values()) <= 1
    assert 2 * sum(is_novel(query.spec) for query in split.queries) >= len(split.queries)
    two = sum(len(reference(split, query).groups) == 2 for query in split.queries)
    assert 0.1 <= two / len(split.queries) <= 0.4


def test_every_word_is_one_that_the_model_knows(split: Split) -> None:
    assert not [query.text for query in split.queries if unknown_words(query.text, "lmm")]


def test_queries_carry_their_reference_and_no_answer(split: Split) -> None:
    for query in split.queries:
        assert set(query.query.model_dump()) == {"id", "text", "reference_image", "dialogue"}
        assert query.query.reference_image == query.reference_image
        assert query.query.dialogue == ()


@pytest.mark.slow
def test_no_picture_is_in_two_collections_or_in_training() -> None:
    held = [{scene.key() for scene in load_composed(name).scenes.values()} for name in SIZES]
    held += [{scene.key() for scene in read_split(name).scenes.values()} for name in SIZES]
    assert len(set.union(*held)) == sum(map(len, held))
    assert not set.union(*held) & {scene.key() for i in range(300) for scene in training_family(i)}


def test_the_scenes_are_those_whose_pictures_were_published(split: Split) -> None:
    """Other scenes than these want new checksums."""
    drawn = {"composed-validation": "eb428822e78982df", "composed-test": "57dc3abbe5de61dd"}
    assert fingerprint([scene.key() for scene in split.scenes.values()])[:16] == drawn[split.name]
    published = json.loads(CHECKSUMS.read_text())
    assert split.name in published
    assert len(set(published.values())) == len(published)

"""FieldNotes-Unmatched: no scene of the collection matches a query, and some scene has all of it but one part."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fieldscope.core.errors import BenchmarkError
from fieldscope.fieldnotes import unmatched
from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.facts import Fact, find
from fieldscope.fieldnotes.queries import BenchmarkQuery, Split, load_split
from fieldscope.fieldnotes.scene import Scene
from fieldscope.fieldnotes.unmatched import FAILING, SIZES, checksum, load_unmatched
from fieldscope.fieldnotes.vocabulary import unknown_words


@pytest.fixture(scope="module", params=list(SIZES))
def split(request: pytest.FixtureRequest) -> Split:
    return read_split(request.param, "unmatched")


def nearest(split: Split, query: BenchmarkQuery) -> list[tuple[Scene, Fact]]:
    """The scenes that have all facts of the query but one, each with that fact."""
    wrong = ((scene, [f for f in query.spec.facts() if not f.holds(scene)]) for scene in split.scenes.values())
    return [(scene, facts[0]) for scene, facts in wrong if len(facts) == 1]


def test_no_scene_of_the_standing_collection_matches(split: Split) -> None:
    assert split.scenes == load_split(split.name).scenes
    for query in split.queries:
        assert not any(all(fact.holds(scene) for fact in query.spec.facts()) for scene in split.scenes.values())
        assert split.relevant[query.id] == frozenset()


def test_sizes() -> None:
    assert {name: len(load_unmatched(name).queries) for name in SIZES} == {
        "validation": 25, "development": 50, "test": 50,
    }  # fmt: skip
    texts = [query.text for name in SIZES for query in load_unmatched(name).queries]
    assert len(set(texts)) == len(texts)
    ids = [query.id for name in SIZES for query in load_unmatched(name).queries]
    assert len(set(ids)) == len(ids)


def test_every_part_fails_as_often_and_alone(split: Split) -> None:
    kinds = {
        "Colour": {"colour"},
        "Binding": {"colour", "behaviour", "context"},
        "Habitat": {"habitat"},
        "Action": {"behaviour", "context"},
        "Company": {"subject"},
    }
    assert Counter(q.supercategory for q in split.queries) == dict.fromkeys(FAILING, len(split.queries) // len(FAILING))
    for query in split.queries:
        near = nearest(split, query)
        assert any(fact.kind in kinds[query.supercategory] for _, fact in near), query.text
        if query.supercategory == "Binding":  # the other animal has what is said of the subject
            shown = ((find(scene, query.spec.companion.species), fact) for scene, fact in near if query.spec.companion)
            assert any(other and fact.value in (other.colour, other.pose, other.item) for other, fact in shown)


def test_the_bundled_models_know_every_word(split: Split) -> None:
    for kind in ("clip", "lmm"):
        assert not [query.text for query in split.queries if unknown_words(query.text, kind)]


def test_a_split_is_made_anew_the_same_and_other_queries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_unmatched.__wrapped__("validation")
    assert made == load_unmatched("validation")
    first, *others = made.queries
    assert checksum(replace(made, queries=(replace(first, text="a crab"), *others))) != checksum(made)
    monkeypatch.setitem(unmatched.CHECKSUMS, "validation", "0" * 64)
    with pytest.raises(BenchmarkError, match="differ from the published ones"):
        load_unmatched.__wrapped__("validation")

"""The benchmark: its size, its near misses, what it holds back from training."""

from __future__ import annotations

import pytest

from fieldscope.fieldnotes.queries import SIZES, Split, is_novel, load_split
from fieldscope.fieldnotes.sampling import training_family


@pytest.fixture(scope="module", params=["validation", "test"])
def split(request: pytest.FixtureRequest) -> Split:
    return load_split(request.param)


def test_sizes_are_inquires(split: Split) -> None:
    queries, images = SIZES[split.name]
    assert (len(split.queries), len(split.scenes)) == (queries, images)
    assert {"validation": 40, "test": 160}[split.name] == queries
    assert len({query.text for query in split.queries}) == queries
    assert len({scene.key() for scene in split.scenes.values()}) == images


def test_every_query_has_relevant_images_and_near_misses(split: Split) -> None:
    for query in split.queries:
        relevant = split.relevant[query.id]
        assert 1 <= len(relevant) <= 100
        held = {i: query.spec.satisfied(scene) for i, scene in split.scenes.items()}
        facts = len(query.spec.facts())
        assert relevant == {i for i, number in held.items() if number == facts}
        assert list(held.values()).count(facts - 1) >= 2, query.text


def test_groups_are_inquires(split: Split) -> None:
    supercategories = [query.supercategory for query in split.queries]
    assert {s: supercategories.count(s) for s in set(supercategories)} == {
        s: len(split.queries) // 4 for s in ("Appearance", "Behavior", "Context", "Species")
    }
    assert all(query.category and query.iconic_group for query in split.queries)


def test_a_third_of_the_queries_is_novel(split: Split) -> None:
    assert sum(is_novel(query.spec) for query in split.queries) >= len(split.queries) / 3


def test_a_split_is_made_anew_the_same() -> None:
    assert load_split.__wrapped__("validation") == load_split("validation")


def test_no_training_scene_is_in_a_collection() -> None:
    held = {scene.key() for name in SIZES for scene in load_split(name).scenes.values()}
    assert not held & {scene.key() for i in range(2000) for scene in training_family(i)}

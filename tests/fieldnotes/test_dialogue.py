"""FieldNotes-Dialogue: what is said in which round, and what is relevant to it."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.fingerprint import fingerprint
from fieldscope.fieldnotes.collection import CHECKSUMS, read_split
from fieldscope.fieldnotes.dialogue import FACTS, ROUNDS, SIZES, load_dialogue
from fieldscope.fieldnotes.queries import SUPERCATEGORIES, BenchmarkQuery, Split, classify, is_novel
from fieldscope.fieldnotes.sampling import random_scene, random_spec, training_family
from fieldscope.fieldnotes.text_tasks import converse
from fieldscope.fieldnotes.vocabulary import unknown_words

Dialogues = Mapping[str, Sequence[BenchmarkQuery]]


@pytest.fixture(scope="module", params=["validation", "test"])
def split(request: pytest.FixtureRequest) -> Split:
    return load_dialogue(request.param)


@pytest.fixture(scope="module")
def dialogues(split: Split) -> Dialogues:
    """The queries of each dialogue, round by round."""
    found = defaultdict(list)
    for query in split.queries:
        found[query.id.partition(".")[0]].append(query)
    return found


def test_a_split_is_as_large_as_promised(split: Split, dialogues: Dialogues) -> None:
    task, name = split.name.split("-")
    assert task == "dialogue"
    assert (len(dialogues), len(split.scenes)) == SIZES[name]
    assert len(dialogues) >= {"validation": 30, "test": 80}[name]
    assert len({scene.key() for scene in split.scenes.values()}) == len(split.scenes)
    assert split == read_split(name, "dialogue")


def test_a_split_is_made_anew_the_same() -> None:
    assert load_dialogue.__wrapped__("validation") == load_dialogue("validation")


def test_each_query_has_heard_one_round_more(dialogues: Dialogues) -> None:
    for name, queries in dialogues.items():
        rounds = queries[-1].dialogue
        assert ROUNDS[0] <= len(rounds) <= ROUNDS[1]
        assert [query.id for query in queries] == [f"{name}.{done}" for done in range(len(rounds) + 1)]
        assert [query.dialogue for query in queries] == [rounds[:done] for done in range(len(rounds) + 1)]
        assert len({(query.text, query.spec) for query in queries}) == 1
        assert FACTS[0] <= len(queries[0].spec.facts()) <= FACTS[1]
        assert queries[-1].query.dialogue == rounds


def test_relevant_is_what_matches_the_whole_dialogue_in_every_round(split: Split, dialogues: Dialogues) -> None:
    for queries in dialogues.values():
        spec = queries[0].spec
        relevant = {i for i, scene in split.scenes.items() if spec.matches(scene)}
        assert 2 <= len(relevant) <= 30
        assert all(split.relevant[query.id] == relevant for query in queries)
        near = [scene for scene in split.scenes.values() if spec.satisfied(scene) == len(spec.facts()) - 1]
        assert len(near) >= len(spec.facts()) - 1


def test_groups_are_even(dialogues: Dialogues) -> None:
    groups = Counter(queries[0].supercategory for queries in dialogues.values())
    assert set(groups) == set(SUPERCATEGORIES)
    assert max(groups.values()) - min(groups.values()) <= 1
    for queries in dialogues.values():
        assert (queries[0].supercategory, queries[0].category) == classify(queries[0].spec)
    assert sum(is_novel(queries[0].spec) for queries in dialogues.values()) >= len(dialogues) / 3


@given(st.integers(0, 10**9))
def test_a_dialogue_says_each_fact_once(seed: int) -> None:
    rng = random.Random(seed)
    spec = random_spec(random_scene(rng), rng, *FACTS)
    text, rounds, _ = converse(spec, rng)
    in_caption = 2 if spec.subject.colour and spec.subject.colour in text.split() else 1
    assert len(rounds) == len(spec.facts()) - in_caption
    assert spec.subject.species in text.split()
    assert all(turn.question.endswith("?") and turn.answer for turn in rounds)


def test_every_word_is_one_that_the_model_knows(split: Split) -> None:
    for query in split.queries:
        words = " ".join([query.text, *(f"{turn.question} {turn.answer}" for turn in query.dialogue)])
        assert not unknown_words(words, "lmm")


@pytest.mark.slow
def test_no_picture_is_in_two_collections_or_in_training() -> None:
    held = [{s.key() for s in read_split(name, task).scenes.values()} for task in ("dialogue", "") for name in SIZES]
    held.append({scene.key() for scene in read_split("test", "composed").scenes.values()})
    assert len(set.union(*held)) == sum(map(len, held))
    assert not set.union(*held) & {scene.key() for i in range(300) for scene in training_family(i)}


def test_the_scenes_are_those_whose_pictures_were_published(split: Split) -> None:
    """Other scenes than these want new checksums."""
    drawn = {"dialogue-validation": "cafc470af380cde6", "dialogue-test": "730885bac7c1f4eb"}
    assert fingerprint([scene.key() for scene in split.scenes.values()])[:16] == drawn[split.name]
    published = json.loads(CHECKSUMS.read_text())
    assert split.name in published
    assert len(set(published.values())) == len(published)

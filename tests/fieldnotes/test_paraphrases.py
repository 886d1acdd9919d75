"""Queries in other words: what is read back, and that the meaning stays."""

from __future__ import annotations

import pytest

from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.paraphrases import paraphrases, read_query
from fieldscope.fieldnotes.queries import matcher
from fieldscope.fieldnotes.vocabulary import unknown_words


@pytest.mark.parametrize(("split", "task"), [("validation", ""), ("test", ""), ("validation", "unmatched")])
def test_every_query_is_read_back_as_what_it_means(split: str, task: str) -> None:
    data = read_split(split, task)
    matches = matcher(data.scenes)
    for query in data.queries:
        read = read_query(query.text)
        assert read is not None and set(read.facts()) == set(query.spec.facts()), query.text
        assert matches(read) == data.relevant[query.id]


def test_paraphrases_mean_the_same_in_other_words() -> None:
    data = read_split("validation")
    matches = matcher(data.scenes)
    for query in data.queries:
        wordings = paraphrases(query.text, data.scenes, 3)
        assert 2 <= len(wordings) <= 3 and query.text not in wordings and len(set(wordings)) == len(wordings)
        for wording in wordings:
            read = read_query(wording)
            assert read is not None and matches(read) == data.relevant[query.id]
            assert not unknown_words(wording, "lmm") and not unknown_words(wording, "clip")
    assert paraphrases(data.queries[0].text, data.scenes, 3) == paraphrases(data.queries[0].text, data.scenes, 3)


def test_an_attribute_belongs_to_the_animal_before_it() -> None:
    read = read_query("a red crab beside a nest with eggs beside two owls without a leaf, in the dark on a coral reef")
    assert read is not None and read.companion is not None
    assert (read.subject.species, read.subject.colour, read.subject.item) == ("crab", "red", "nest")
    assert (read.companion.species, read.companion.count, read.companion.without) == ("owl", 2, "leaf")
    assert (read.habitat, read.weather) == ("reef", "night")


@pytest.mark.parametrize("text", ["a heron in the reeds", "the same, but on snow", "", "red", "a crab, a fox, a fish"])
def test_other_texts_are_not_read(text: str) -> None:
    assert read_query(text) is None
    assert paraphrases(text, {}, 3) == ()

"""The grammar's questions read backwards: every question that it writes, and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldscope.fieldnotes.facts import Fact
from fieldscope.fieldnotes.grammar import CANON, Words
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.fieldnotes.tasks import random_fact
from fieldscope.fieldnotes.truth import answer, every_fact, facts_asked, wordings

CRABS = Scene("beach", "rain", (Group("crab", "red", 2, item="tag"), Group("fish", "blue", 1)))
STARFISH = Scene("reef", "clear", (Group("starfish", "red", 1),))
SECOND_KIND = "is there a second kind of animal?"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_the_grammar_asks_has_its_answer(seed: int) -> None:
    rng = random.Random(seed)
    scene, other = random_scene(rng), random_scene(rng)
    fact = random_fact(scene, rng)
    for question in (CANON.question(fact), Words(rng).question(fact)):
        assert fact in facts_asked(question)
        for seen in (scene, other):
            assert answer(question, seen) == fact.answer(seen) or question == SECOND_KIND


def test_all_facts_and_all_their_wordings() -> None:
    facts = list(every_fact())
    # 14 species with 8 colours, 3 numbers, 4 poses, 5 items there or not, themselves, alone, and 13 to compare with; 8
    # places and 4 weathers.
    assert len(facts) == len(set(facts)) == 14 * (8 + 3 + 4 + 5 + 5 + 1 + 1 + 13) + 8 + 4
    assert wordings(Fact("weather", "", "fog")) == {
        "is it foggy?",
        *(
            start.format(weather)
            for weather in ("in fog", "on a foggy day")
            for start in (
                "was this photo taken {}?", "is the scene {}?", "is this {}?", "was this picture taken {}?",
                "does the image show a scene {}?",
            )
        ),
    }  # fmt: skip
    rng = random.Random(0)
    for fact in rng.sample(facts, 40):
        assert {Words(rng).question(fact) for _ in range(2000)} == wordings(fact)


@pytest.mark.parametrize(
    ("question", "on_the_beach", "on_the_reef"),
    [
        ("is there a fish?", True, False),  # a starfish is no fish
        ("Is there  a FISH?", True, False),
        ("are the crabs red in colour?", True, False),
        ("is the crab blue?", False, False),  # the fish is
        ("is there exactly one fish?", True, False),
        ("are there exactly two crabs?", True, False),
        ("are there more crabs than fish?", True, False),
        ("is the crab wearing a tag?", True, False),
        ("is the starfish wearing a tag?", False, False),
        ("is there any other animal than the crab?", True, True),
        ("is there any other animal than the starfish?", True, False),
        ("was this photo taken on a reef?", False, True),
        ("is it raining?", True, False),
        (SECOND_KIND, True, None),  # besides which? With two kinds that does not matter
        ("does the image show two red crabs?", None, None),
        ("is there a unicorn?", None, None),
        ("is the crab not red?", None, None),
        ("", None, None),
    ],
)
def test_answers_by_hand(question: str, on_the_beach: bool | None, on_the_reef: bool | None) -> None:
    assert (answer(question, CRABS), answer(question, STARFISH)) == (on_the_beach, on_the_reef)


def test_what_is_carried_and_what_must_not_be_are_asked_alike() -> None:
    assert set(facts_asked("is the crab wearing a tag?")) == {
        Fact("context", "crab", "tag"),
        Fact("absence", "crab", "tag"),
    }
    assert facts_asked("is there a crab") == ()

"""The world: scenes, pictures, facts and the words for them."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.fieldnotes.facts import Fact, Part, Spec, describe, held_out, is_training_scene
from fieldscope.fieldnotes.grammar import CANON, Words
from fieldscope.fieldnotes.render import patch_labels, render
from fieldscope.fieldnotes.sampling import mutate, random_scene, random_spec, training_family
from fieldscope.fieldnotes.scene import COLOURS, HABITATS, ITEMS, POSES, SPECIES, WEATHERS, Group, Scene

seeds = st.integers(0, 10**9)
CRABS = Scene("beach", "rain", (Group("crab", "red", 2, "resting", "litter"), Group("fish", "blue", 1, "airborne")), 7)


def test_a_scene_refuses_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'pink'"):
        Group("crab", "pink")
    with pytest.raises(ValueError, match="'moon'"):
        Scene("moon", "rain", (Group("crab", "red"),))
    with pytest.raises(ValueError, match="differ"):
        Scene("beach", "rain", (Group("crab", "red"), Group("crab", "blue")))
    with pytest.raises(ValueError, match="differ"):
        Scene("beach", "rain", (Group("crab", "red"), Group("fish", "red")))


@given(seeds)
def test_every_picture_is_of_the_promised_shape(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    picture = render(scene)
    assert (picture.mode, picture.size) == ("RGB", (224, 224))
    labels = patch_labels(scene)
    assert len(labels.group) == len(labels.item) == 64
    assert {g for g in labels.group if g >= 0} == set(range(len(scene.groups)))
    assert any(labels.item) == any(group.item != "none" for group in scene.groups)


def test_pictures_are_the_same_in_another_process() -> None:
    code = (
        "import random; from fieldscope.core.fingerprint import fingerprint_pixels;"
        "from fieldscope.fieldnotes.render import render;"
        "from fieldscope.fieldnotes.sampling import random_scene; r = random.Random(3);"
        "print([fingerprint_pixels(render(random_scene(r))) for _ in range(5)])"
    )
    rng = random.Random(3)
    here = [fingerprint_pixels(render(random_scene(rng))) for _ in range(5)]
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "12345"}, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == str(here)
    assert len(set(here)) == 5


def test_the_nuisance_seed_changes_the_picture_and_not_the_content() -> None:
    again = Scene(CRABS.habitat, CRABS.weather, CRABS.groups, 8)
    assert again.content() == CRABS.content()
    assert again.key() != CRABS.key()
    assert fingerprint_pixels(render(again)) != fingerprint_pixels(render(CRABS))


@pytest.mark.parametrize(
    ("fact", "answer", "holds"),
    [
        (Fact("subject", "crab"), True, True),
        (Fact("subject", "owl"), False, False),
        (Fact("colour", "crab", "red"), True, True),
        (Fact("colour", "crab", "blue"), False, False),  # the fish is blue
        (Fact("colour", "owl", "red"), False, False),
        (Fact("count", "crab", "2"), True, True),
        (Fact("count", "crab", "1"), False, False),
        (Fact("behaviour", "fish", "airborne"), True, True),
        (Fact("behaviour", "crab", "airborne"), False, False),  # the fish jumps
        (Fact("context", "crab", "litter"), True, True),
        (Fact("context", "fish", "litter"), False, False),
        (Fact("absence", "fish", "litter"), False, True),
        (Fact("absence", "crab", "litter"), True, False),
        (Fact("alone", "crab"), True, False),
        (Fact("comparison", "crab", "fish"), True, True),
        (Fact("comparison", "fish", "crab"), False, False),
        (Fact("habitat", "", "beach"), True, True),
        (Fact("weather", "", "fog"), False, False),
    ],
)
def test_facts_bind_attributes_to_their_species(fact: Fact, answer: bool, holds: bool) -> None:
    assert fact.answer(CRABS) is answer
    assert fact.holds(CRABS) is holds


def test_a_query_needs_all_of_its_facts() -> None:
    spec = Spec(Part("crab", "red", 2, item="litter"), habitat="beach", weather="rain")
    assert CANON.spec(spec) == "two red crabs holding plastic litter on a beach in the rain"
    assert spec.matches(CRABS)
    sunny = Scene("beach", "clear", CRABS.groups)
    assert not spec.matches(sunny)
    assert spec.satisfied(sunny) == len(spec.facts()) - 1 == 5


@given(seeds)
def test_a_drawn_query_matches_its_scene_and_says_all_its_facts(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    spec = random_spec(scene, rng)
    assert spec.matches(scene)
    text, said = Words(rng).speak(spec)
    assert set(said) == set(spec.facts())
    assert all(words in text for words in said.values())


@given(seeds)
def test_a_counterfactual_differs_and_a_description_is_true(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    changed = mutate(scene, rng)
    assert changed.content() != scene.content()
    assert describe(scene).matches(scene)
    assert describe(changed).matches(changed)


@given(st.integers(0, 19_999))
def test_training_scenes_show_no_held_out_combination(index: int) -> None:
    assert all(is_training_scene(scene) for scene in training_family(index))


def test_held_out_combinations_leave_every_pair_to_training() -> None:
    kept = [(s, c, h) for s in SPECIES for c in COLOURS for h in HABITATS if not held_out(s, c, h)]
    assert len(kept) == len(SPECIES) * len(COLOURS) * len(HABITATS) * 3 // 4
    assert len({(s, c) for s, c, _ in kept}) == len(SPECIES) * len(COLOURS)
    assert len({(s, h) for s, _, h in kept}) == len(SPECIES) * len(HABITATS)
    assert len({(c, h) for _, c, h in kept}) == len(COLOURS) * len(HABITATS)


def test_the_world_is_as_large_as_promised() -> None:
    assert (len(SPECIES), len(COLOURS), len(HABITATS), len(WEATHERS)) == (14, 8, 8, 4)
    assert (len(POSES), len(ITEMS)) == (4, 6)

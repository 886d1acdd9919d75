"""FieldNotes-Wild: what the scene graph says is what the photograph shows, and what the judgments are made from."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fieldscope.fieldnotes.collection import read_split
from fieldscope.fieldnotes.facts import Fact, Part, Spec
from fieldscope.fieldnotes.queries import Split
from fieldscope.fieldnotes.sampling import random_scene
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.fieldnotes.vocabulary import unknown_words
from fieldscope.fieldnotes.wild.layout import place
from fieldscope.fieldnotes.wild.queries import SIZES, WildQuery, load_wild
from fieldscope.fieldnotes.wild.render import draw, photograph
from fieldscope.fieldnotes.wild.scene import HEIGHT, OCCLUSIONS, WIDTH, Conditions, Shot, WildScene
from fieldscope.fieldnotes.wild.scene import SIZES as BANDS
from fieldscope.fieldnotes.wild.shots import photographed, random_conditions, random_light

FOX = Scene("meadow", "clear", (Group("fox", "red"),), 7)


def wild(seed: int, size: str | None = None) -> WildScene:
    rng = random.Random(seed)
    scene = random_scene(rng)
    return photographed(scene, random_conditions(rng, random_light(rng, scene.weather), size), rng)


def pixels(scene: WildScene) -> np.ndarray:
    with Image.open(io.BytesIO(photograph(scene))) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


@pytest.fixture(scope="module")
def split() -> Split:
    return read_split("validation", "wild")


def test_a_wild_scene_refuses_what_does_not_exist() -> None:
    fox, owl = Group("fox", "red"), Group("owl", "blue")
    with pytest.raises(ValueError, match="a width and a hidden share for each group"):
        WildScene("meadow", "clear", (fox, owl), 1, 1, Shot("day", (200,), (0,)))
    with pytest.raises(ValueError, match="one or two main groups"):
        WildScene("meadow", "clear", (fox,), 1, 2, Shot("day", (200,), (0,)))
    with pytest.raises(ValueError, match="the light is night where the weather is"):
        WildScene("meadow", "clear", (fox,), 1, 1, Shot("night", (200,), (0,)))
    with pytest.raises(ValueError, match="differ in species and colour"):
        WildScene("meadow", "clear", (fox, Group("owl", "red")), 1, 1, Shot("day", (200, 90), (0, 0)))


@pytest.mark.parametrize("size", BANDS)
def test_every_animal_is_in_the_frame_at_its_width_and_apart_from_the_others(size: str) -> None:
    for seed in range(60):
        scene = wild(seed, size)
        layout = place(scene)
        counted = Counter(spot.group for spot in layout.spots)
        assert counted == {at: group.count for at, group in enumerate(scene.groups)}
        for spot in layout.spots:
            left, top, right, bottom = spot.box
            assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT
            assert spot.width == scene.shot.widths[spot.group] * WIDTH // 1000
        for at, spot in enumerate(layout.spots):
            for neighbour in layout.spots[:at]:
                apart = max(abs(spot.x - neighbour.x), abs(spot.y - neighbour.y))
                assert apart >= 0.95 * (spot.width + neighbour.width) / 2


def test_plants_hide_as_much_as_the_scene_says() -> None:
    seen: set[str] = set()
    for seed in range(24):
        scene = wild(seed)
        _, shares = draw(scene)
        for spot, share in zip(place(scene).spots, shares, strict=True):
            wanted = scene.shot.hidden[spot.group]
            assert (share == 0) if wanted == 0 else wanted <= share <= wanted + 12
        seen.add(next(name for name, (low, high) in OCCLUSIONS.items() if low <= scene.shot.hidden[0] <= high))
    assert seen == set(OCCLUSIONS)


def test_every_degradation_of_the_shot_is_in_the_photograph() -> None:
    plain = WildScene("meadow", "clear", FOX.groups, 7, 1, Shot("day", (300,), (0,)))
    picture = pixels(plain)
    assert picture.shape == (HEIGHT, WIDTH, 3)

    def shot(**changes: object) -> np.ndarray:
        # The seed of everything else is the scene's key, so that only what a shot changes differs.
        scene = replace(plain, shot=replace(plain.shot, **changes))
        canvas = Image.fromarray(picture.astype(np.uint8))
        return np.asarray(camera.photographed(canvas, scene.shot, "seed")).astype(float)

    from fieldscope.fieldnotes.wild import camera

    assert np.abs(shot() - picture).max() == 0
    assert shot(gain=50).mean() == pytest.approx(picture.mean() / 2, abs=1)
    assert shot(haze=40).std() == pytest.approx(picture.std() * 0.6, rel=0.05)
    assert (shot(grain=12, gain=60) - shot(gain=60)).std() == pytest.approx(12, rel=0.1)
    assert np.abs(np.diff(shot(blur=(8, 0)), axis=1)).mean() < 0.6 * np.abs(np.diff(picture, axis=1)).mean()
    assert shot(light="dusk")[..., 2].mean() < shot(light="dusk")[..., 0].mean() * picture[..., 2].mean()
    coarse = photograph(replace(plain, shot=replace(plain.shot, quality=35)))
    assert len(coarse) < len(photograph(plain))


def test_photographs_are_the_same_in_another_process() -> None:
    code = (
        "import random; from hashlib import sha256; from tests.fieldnotes.test_wild import wild;"
        "from fieldscope.fieldnotes.wild.render import photograph;"
        "print([sha256(photograph(wild(seed))).hexdigest() for seed in range(3)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "12345"}, capture_output=True, text=True, check=True
    )
    from hashlib import sha256

    assert there.stdout.strip() == str([sha256(photograph(wild(seed))).hexdigest() for seed in range(3)])


def test_distractors_count_when_a_query_is_judged() -> None:
    fox, owl = Group("fox", "red"), Group("owl", "blue")
    scene = WildScene("meadow", "clear", (fox, owl), 1, 1, Shot("day", (300, 100), (0, 0)))
    assert scene.subjects == (fox,)
    assert Spec(Part("owl", "blue")).matches(scene)
    assert not Spec(Part("fox", "red"), alone=True).matches(scene)
    assert not Fact("alone", "fox").holds(scene)
    assert scene.conditions("fox") == Conditions("large", "day", "none")
    assert scene.conditions("owl") == Conditions("small", "day", "none")
    assert scene.conditions("crab") is None


def test_sizes_and_bands(split: Split) -> None:
    matched, unmatched, images = SIZES["validation"]
    queries = [query for query in split.queries if isinstance(query, WildQuery)]
    assert (len(split.scenes), len(queries)) == (images, matched + unmatched) == (800, 60)
    for some in (True, False):
        bands = Counter(query.conditions.size for query in queries if bool(split.relevant[query.id]) == some)
        assert bands == dict.fromkeys(BANDS, (matched if some else unmatched) // 3)
    assert {query.groups["light"] for query in queries} == {"day", "dusk", "night"}
    assert {query.groups["occlusion"] for query in queries} == set(OCCLUSIONS)
    assert len({query.text for query in queries}) == len({query.id for query in queries}) == len(queries)


def test_the_judgments_are_those_of_the_scene_graphs_under_the_conditions_of_the_query(split: Split) -> None:
    for query in split.queries:
        assert isinstance(query, WildQuery)
        matches = {i for i, scene in split.scenes.items() if all(fact.holds(scene) for fact in query.spec.facts())}
        assert split.relevant[query.id] == matches
        for image_id in matches:
            scene = split.scenes[image_id]
            assert isinstance(scene, WildScene)
            assert scene.conditions(query.spec.subject.species) == query.conditions
        if not matches:
            assert any(query.spec.satisfied(s) == len(query.spec.facts()) - 1 for s in split.scenes.values())


def test_the_bundled_models_know_every_word(split: Split) -> None:
    for kind in ("clip", "lmm"):
        assert not [query.text for query in split.queries if unknown_words(query.text, kind)]


def test_a_split_is_made_anew_the_same(split: Split) -> None:
    assert load_wild.__wrapped__("validation") == split

"""The bundled models look closer at large pictures."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from PIL import Image as PILImage

import fieldscope
from fieldscope.fieldnotes.habitats import paint_background
from fieldscope.fieldnotes.layout import CANVAS, Layout
from fieldscope.fieldnotes.scene import Group, Scene
from fieldscope.fieldnotes.wild.animals import animal_sheet

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ANIMALS = (("fox", "blue"), ("duck", "red"), ("fox", "red"), ("owl", "white"), ("duck", "white"), ("owl", "blue"))
SIZE = (1600, 1200)


def large_picture(species: str, colour: str, seed: int) -> PILImage.Image:
    """One animal of about a tenth of the picture's width."""
    rng, group = Random(seed), Group(species, colour)
    backdrop = Layout((), CANVAS // 4, 0, 0)
    picture = paint_background(Scene("meadow", "clear", (group,), seed), backdrop).resize(SIZE)
    sheet = animal_sheet(group, rng.random() < 0.5).resize((260, 260))
    picture.paste(sheet, (rng.randint(0, SIZE[0] - 260), rng.randint(300, SIZE[1] - 260)), sheet)
    return picture


def test_a_small_animal_in_a_large_picture_is_found_by_looking_closer(pictures: Path) -> None:
    images = {f"{n}": large_picture(*animal, seed=n) for n, animal in enumerate(ANIMALS)}
    ranking = fieldscope.rerank("a red fox", images, strategy="agent")
    assert any(verdict.look is not None for verdict in ranking.result.verdicts)
    assert ranking[0].image_id == "2"
    changed = {ranked.image_id: ranked.contributions.get("looks", 0.0) for ranked in ranking.result.ranking}
    assert max(changed, key=lambda image_id: changed[image_id]) == "2"

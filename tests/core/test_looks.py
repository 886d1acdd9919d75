"""A look has one id, which nothing else has, and a region named by a stranger is checked before it is one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fieldscope.core.looks import SMALLEST_SIDE, Look, Region, look_id, read_look

HEAD = Region(left=0.4, top=0.25, right=0.6, bottom=0.55)
FRACTIONS = st.floats(0, 1)
NAMES = st.text(alphabet="ab#%2350&=:,.xywhpercntlok", max_size=24) | st.text()


def test_the_id_of_a_look_is_a_media_fragment() -> None:
    assert look_id("a/b.jpg", Look(region=HEAD)) == "a/b.jpg#xywh=percent:40,25,20,30"
    assert look_id("b.jpg", Look(enhance=True)) == "b.jpg#look=enhance"
    assert look_id("b.jpg", Look(region=HEAD, enhance=True)) == "b.jpg#xywh=percent:40,25,20,30&look=enhance"
    assert look_id("b.jpg", Look(enhance=True, cutoff=None, median=5)) == "b.jpg#look=enhance:none,5"
    assert look_id("b.jpg", Look(proposed_by="tiles", similarity=0.2)) == look_id("b.jpg") == "b.jpg"


@given(NAMES, FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS, st.booleans(), st.sampled_from([None, 0.0, 1.0, 2.5]))
def test_an_id_is_read_as_it_was_written_and_no_other_image_has_it(
    name: str, left: float, top: float, right: float, bottom: float, enhance: bool, cutoff: float | None
) -> None:
    look = Look(region=Region.clipped(left, top, right, bottom), enhance=enhance, cutoff=cutoff if enhance else 1.0)
    seen = look_id(name, look)
    if look == Look():
        assert seen == look_id(name)
    else:
        assert read_look(seen) == (name, look)
        # A file of that very name is another image, and so is any look at it.
        assert read_look(look_id(seen)) == (seen, Look())
        assert read_look(look_id(seen, look)) == (seen, look)
    assert read_look(name) is not None or look_id(name) == name, "the ids of images stay as they are"


@pytest.mark.parametrize(
    "name", ["a.jpg#1", "a#xywh=percent:50,50,60,20", "a#xywh=percent:040,25,20,30", "#", "a#look="]
)
def test_what_merely_resembles_a_look_is_the_id_of_an_image(name: str) -> None:
    assert read_look(name) is None
    assert look_id(name) == name


@pytest.mark.parametrize(
    "box",
    [
        (math.nan, 0, 1, 1),
        (0, 0, math.inf, 1),
        (0, 0, 10**400, 1),
        (0.6, 0, 0.4, 1),
        (0.2, 0.2, 0.2, 0.9),
        (1.2, 0, 1.9, 1),
        (-3, -3, -1, -1),
        (0.5, 0.5, 0.5 + SMALLEST_SIDE / 2, 0.9),
        ("0", 0, 1, 1),
        (False, False, True, True),
        ([0], 0, 1, 1),
        (None, 0, 1, 1),
    ],
)
def test_no_region_is_made_of_what_is_none(box: tuple[object, object, object, object]) -> None:
    assert Region.clipped(*box) is None


def test_a_region_is_clipped_to_the_picture() -> None:
    assert Region.clipped(-5, 0.5, 0.25, 1e300) == Region(left=0, top=0.5, right=0.25, bottom=1)
    with pytest.raises(ValidationError):
        Region(left=0.5, top=0, right=0.5, bottom=1)


def test_regions_overlap_and_are_joined() -> None:
    left, right = Region(left=0, top=0, right=0.5, bottom=1), Region(left=0.25, top=0, right=0.75, bottom=1)
    assert left.shared(right) == pytest.approx(1 / 2)
    assert left.shared(Region(left=0.1, top=0.1, right=0.2, bottom=0.2)) == pytest.approx(1)
    assert left.shared(Region(left=0.5, top=0, right=1, bottom=1)) == 0
    assert left.around(right) == Region(left=0, top=0, right=0.75, bottom=1)


@given(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS, st.integers(1, 9000), st.integers(1, 9000))
def test_a_region_has_pixels_of_the_picture(
    left: float, top: float, right: float, bottom: float, width: int, height: int
) -> None:
    region = Region.clipped(left, top, right, bottom)
    if region is not None:
        x0, y0, x1, y1 = region.pixels(width, height)
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height

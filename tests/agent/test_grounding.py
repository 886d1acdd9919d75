"""Boxes named by a model are read in Qwen-VL's formats, clipped, and never trusted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.grounding import MARGIN, ground_request, named_regions
from fieldscope.agent.lmm.base import ImagePart
from fieldscope.core.looks import Region
from fieldscope.prompts.prompt_set import load_prompt

HERON = Region(left=0.35, top=0.15, right=0.65, bottom=0.45)  # 0.4, 0.2, 0.6, 0.4 with its margin


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ('[{"bbox_2d": [400, 200, 600, 400], "label": "heron"}]', None),
        ('```json\n[\n\t{"label": "heron", "bbox_2d": [400.0, 200, 600, 4e2]}\n]\n```', None),
        ('{"bbox_2d": [560, 150, 840, 300], "label": "heron"}', (1400, 750)),
        ("<|object_ref_start|>heron<|object_ref_end|><|box_start|>(400,200),(600,400)<|box_end|><|im_end|>", None),
        ("<ref>the heron</ref><box>(400, 200), (600, 400)</box>", (1400, 750)),
        ('[{"bbox_2d": [400, 200, 600, 400]}, {"bbox_2d": [1, 2, ', None),
    ],
)
def test_boxes_are_read_as_models_write_them(answer: str, seen: tuple[int, int] | None) -> None:
    assert MARGIN == 0.25
    assert named_regions(answer, 5, seen) == (HERON,)


HOSTILE = [
    "NaN, NaN, NaN, NaN",
    "1e400, 0, 1e400, 10",
    "0, 0, Infinity, 100",
    "600, 400, 400, 200",
    "100, 100, 100, 300",
    "-500, -500, -100, -100",
    "2000, 2000, 3000, 3000",
    "100, 100, 101, 101",
    '"100", "100", "300", "300"',
    "[100, 100], [300, 300]",
    "100, 100, 300",
    "100, 100, 300, 300, 500",
    "true, 0, 500, 500",
    "null, 0, 500, 500",
    "9" * 5000 + ", 0, 500, 500",
    "0x10, 0, 500, 500",
    "{}, [], {}, []",
]


@pytest.mark.parametrize("numbers", HOSTILE)
@pytest.mark.parametrize("seen", [None, (640, 480), (1, 1)])
def test_a_hostile_box_is_left_out_and_the_next_one_is_read(numbers: str, seen: tuple[int, int] | None) -> None:
    good = "<|box_start|>(400,200),(600,400)<|box_end|>"
    assert named_regions(f'[{{"bbox_2d": [{numbers}]}}]{good}', 5, seen) == (HERON,)


def test_what_lies_partly_outside_is_clipped() -> None:
    (region,) = named_regions('{"bbox_2d": [-5000, 900, 500, 1e9]}', 5)
    assert region == Region(left=0, top=0.875, right=0.625, bottom=1)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "There is no heron.",
        "[]",
        '{"box": [400, 200, 600, 400]}',
        '{"point_2d": [400, 200]}',
        "[" * 20_000,
        '{"bbox_2d":' * 5_000,
        '"bbox_2d": [' + " " * 100_000,
        '"bbox_2d": [' + "1," * 50_000,
        "<|box_start|>" * 10_000,
        "<|box_start|>(400,200),(600,400)",
        "a" * 10_000_000 + '"bbox_2d": [400, 200, 600, 400]',
        "\x00\ud800\U0001f426",
    ],
)
def test_an_answer_without_a_box_names_no_region(answer: str) -> None:
    assert named_regions(answer, 5) == ()


def test_of_thousands_of_boxes_a_few_are_kept() -> None:
    boxes = [{"bbox_2d": [10 * n % 900, 7 * n % 900, 10 * n % 900 + 50, 7 * n % 900 + 50]} for n in range(5_000)]
    assert len(named_regions(json.dumps(boxes), 3)) == 3
    assert len(named_regions(json.dumps([boxes[0]] * 5_000), 3)) == 1, (
        "one box is one region, however often it is named"
    )


@given(st.text(alphabet='"bbox_2d:[]0123456789.,-+e <|>()start', max_size=200) | st.text())
def test_any_text_gives_regions_or_none(answer: str) -> None:
    for region in named_regions(answer, 4, (640, 480)):
        assert 0 <= region.left < region.right <= 1
        assert 0 <= region.top < region.bottom <= 1


def test_the_prompt_shows_the_image_before_the_question() -> None:
    image = ImagePart(image_id="a.jpg", sha256="0" * 64)
    request = ground_request(image, "a grey heron", load_prompt("ground"), 300, {})
    assert request.messages[-1].content[0] == image
    assert 'Search: "a grey heron"' in request.text
    assert "bbox_2d" in request.text

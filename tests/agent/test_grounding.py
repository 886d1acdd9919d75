"""Boxes named by a model are read in Qwen-VL's formats, clipped, and never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldscope.agent.budget import Budget
from fieldscope.agent.graph import Agent
from fieldscope.agent.grounding import MARGIN, ground_request, named_regions
from fieldscope.agent.lmm.base import ImagePart, LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.inspection import Grounding
from fieldscope.core.errors import LMMResponseError
from fieldscope.core.looks import Region
from fieldscope.prompts.prompt_set import load_prompt
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.looked_at import LookedAt
from fieldscope.retrieval.regions import Proposal
from tests.agent.large_frames import (
    CANDIDATES,
    IMAGES,
    QUERY,
    Reddest,
    paint_frames,
    short_sighted,
    strategy_with,
)

HERON = Region(left=0.35, top=0.15, right=0.65, bottom=0.45)  # 0.4, 0.2, 0.6, 0.4 with its margin


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [400, 200, 600, 400], "label": "heron"}]',
        '```json\n[\n\t{"label": "heron", "bbox_2d": [400.0, 200, 600, 4e2]}\n]\n```',
        "<|object_ref_start|>heron<|object_ref_end|><|box_start|>(400,200),(600,400)<|box_end|><|im_end|>",
        "<ref>the heron</ref><box>(400, 200), (600, 400)</box>",
        '[{"bbox_2d": [400, 200, 600, 400]}, {"bbox_2d": [1, 2, ',
    ],
)
def test_boxes_are_read_as_models_write_them(answer: str) -> None:
    assert MARGIN == 0.25
    assert named_regions(answer, 5) == (HERON,)


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
def test_a_hostile_box_is_left_out_and_the_next_one_is_read(numbers: str) -> None:
    good = "<|box_start|>(400,200),(600,400)<|box_end|>"
    assert named_regions(f'[{{"bbox_2d": [{numbers}]}}]{good}', 5) == (HERON,)


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
    for region in named_regions(answer, 4):
        assert 0 <= region.left < region.right <= 1
        assert 0 <= region.top < region.bottom <= 1


def asked() -> Grounding:
    return Grounding(prompt=load_prompt("ground"))


def test_the_prompt_shows_the_image_before_the_question() -> None:
    image = ImagePart(image_id="a.jpg", sha256="0" * 64)
    request = ground_request(image, "a grey heron", asked())
    assert request.messages[-1].content[0] == image
    assert 'Search: "a grey heron"' in request.text
    assert "bbox_2d" in request.text


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LookedAt:
    return LookedAt(FolderCollection(paint_frames(tmp_path_factory.mktemp("grounded"))))


BOXES = {
    "3.png": '[{"bbox_2d": [800, 150, 920, 310], "label": "a red bird"}]',
    "9.png": "<|box_start|>(110,820),(240,980)<|box_end|>",
    "4.png": '[{"bbox_2d": [NaN, 0, 1e999, -5]}, {"bbox_2d": [0, 0, 1000, 1000]}] ../../etc/passwd',
    "5.png": "I can't help with that.",
}


def grounding(images: LookedAt) -> Callable[[LMMRequest], str | float]:
    """A short-sighted model that names boxes, some of them hostile."""
    judge = short_sighted(images)

    def answer(request: LMMRequest) -> str | float:
        return BOXES.get(request.images[0].image_id, "[]") if "bbox_2d" in request.text else judge(request)

    return answer


class NoTile(Reddest):
    """Finds no tile, so that only the model's boxes are looked at."""

    def propose(self, *_: object, **__: object) -> Mapping[str, tuple[Proposal, ...]]:
        return {}


async def test_boxes_that_the_model_names_are_looked_at_and_find_what_is_small(images: LookedAt) -> None:
    lmm = ScriptedLMM(grounding(images))
    agent = Agent(Resources(images, lmm, regions=NoTile(images)), strategy_with(ground=asked()))
    result = await agent.rerank(QUERY, CANDIDATES)
    assert {ranked.image_id for ranked in result.ranking[:2]} == {"3.png", "9.png"}
    looks = {verdict.image_id: verdict.look for verdict in result.verdicts if verdict.look is not None}
    assert looks.keys() == {"3.png", "9.png"}, "a box of the whole picture shows nothing more, and the others are none"
    assert all(look.proposed_by == "model" and look.region and look.region.area < 0.1 for look in looks.values())
    calls = [call for call in result.calls if call.stage == "ground"]
    assert len(calls) == IMAGES and all(call.state == "answered" for call in calls)
    (inspected,) = (event for event in result.trace if event.kind == "inspected")
    assert inspected.data["calls"] == IMAGES
    assert set(inspected.data["named"]) == {"3.png", "4.png", "9.png"}


async def test_a_box_comes_before_the_tiles_and_takes_the_place_of_those_that_it_covers(images: LookedAt) -> None:
    strategy = strategy_with(ground=asked(), always=True)
    agent = Agent(Resources(images, ScriptedLMM(grounding(images)), regions=Reddest(images)), strategy)
    result = await agent.rerank(QUERY, CANDIDATES)
    looks = [verdict.look for verdict in result.verdicts if verdict.image_id == "3.png" and verdict.look is not None]
    assert [look.proposed_by for look in looks] == ["model", "tiles", "around"]
    assert looks[0].region and looks[1].region and looks[0].region.shared(looks[1].region) == 0


async def test_where_the_model_can_not_be_asked_tiles_are_looked_at_and_it_is_said(images: LookedAt) -> None:
    def failing(request: LMMRequest) -> str | float | Exception:
        failed = LMMResponseError("the server sent no answer; restart it")
        return failed if "bbox_2d" in request.text else short_sighted(images)(request)

    agent = Agent(Resources(images, ScriptedLMM(failing), regions=Reddest(images)), strategy_with(ground=asked()))
    result = await agent.rerank(QUERY, CANDIDATES)
    assert {ranked.image_id for ranked in result.ranking[:2]} == {"3.png", "9.png"}
    assert any("ground" in flag and "restart it" in flag for flag in result.flags)


async def test_a_budget_that_ends_with_the_boxes_leaves_a_ranking(images: LookedAt) -> None:
    lmm = ScriptedLMM(grounding(images))
    agent = Agent(Resources(images, lmm, regions=Reddest(images)), strategy_with(ground=asked()))
    result = await agent.rerank(QUERY, CANDIDATES, budget=Budget(max_calls=IMAGES + 4))
    assert len(lmm.requests) == IMAGES + 4 and len(result.ranking) == IMAGES
    assert sum(call.state == "not_asked" for call in result.calls) == IMAGES - 4

"""`imagescope-published`: the decisions of ImageScope's published code, worked out by hand, on a scripted LMM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Query
from fieldscope.retrieval.captions import Captions
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.library import Library
from tests.agent.bag_of_words import DIALOGUE, BagOfWords, Script, painted_library

TEXT = Query(id="t", text="A Fox in the Snow.")
CHANGE = Query(id="c", text="Now in the Snow.", reference_image="fox.png")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return painted_library(tmp_path)


def published(**settings: Any) -> Strategy:
    return load_strategy("imagescope-published", settings or None)


async def ranked(library: Library, script: Script, query: Query, strategy: Strategy | None = None) -> RerankResult:
    images = FolderCollection(Path(str(library.locator["root"])))
    agent = Agent(Resources(images, ScriptedLMM(script), library), strategy or published())
    return await agent.rerank(query)


def order(result: RerankResult) -> list[str]:
    return [candidate.image_id.removesuffix(".png") for candidate in result.ranking]


def priors(result: RerankResult) -> dict[str, float]:
    return {candidate.image_id.removesuffix(".png"): candidate.prior for candidate in result.ranking}


THREE = ("fox", "fox snow", "fox snow night")
MEAN = {"fox": 0.7615, "snow": 0.4282, "night": 0.1925, "hare": 0.0, "tree": 0.0}
"""The mean of three similarities: fox (1 + 0.7071 + 0.5774) / 3, snow (0 + 0.7071 + 0.5774) / 3, night 0.5774 / 3."""


@pytest.mark.parametrize(
    ("query", "captions", "expected"),
    [
        pytest.param(TEXT, {}, MEAN, id="a text: the descriptions alone, not its own words"),
        pytest.param(CHANGE, {}, MEAN, id="a change: neither its words nor the reference image's vector"),
        pytest.param(
            TEXT,
            {"fox.png": "night", "tree.png": "fox"},
            # 0.85 * 0.7615 + 0.15 * 0.1925, and 0.85 * 0 + 0.15 * 0.7615; those without a caption as they are.
            MEAN | {"fox": 0.6761, "tree": 0.1142},
            id="captions weigh 0.15",
        ),
    ],
)
async def test_search_vectors(
    library: Library, query: Query, captions: dict[str, str], expected: dict[str, float]
) -> None:
    if captions:
        vectors = np.stack([BagOfWords.of(text) for text in captions.values()])
        library = replace(library, captions=Captions(captions, vectors))
    result = await ranked(library, Script({query.text: THREE}), query)
    assert priors(result) == pytest.approx(expected, abs=1e-4)


async def test_a_description_counts_as_often_as_it_is_given(library: Library) -> None:
    """fox (1 + 1 + 0.7071) / 3, snow 0.7071 / 3; the different ones alone would give 0.8536 and 0.3536."""
    result = await ranked(library, Script({TEXT.text: ("fox", "fox", "fox snow")}), TEXT)
    expected = {"fox": 0.9024, "snow": 0.2357, "night": 0.0, "hare": 0.0, "tree": 0.0}
    assert priors(result) == pytest.approx(expected, abs=1e-4)


async def test_our_own_strategy_searches_by_the_query_too(library: Library) -> None:
    """What the differences are worth: half of a composed query's vector is reference and change, and the reference is
    left out."""
    ours = published().model_copy(update={"retrieve": load_strategy("imagescope").retrieve})
    result = await ranked(library, Script({CHANGE.text: THREE}), CHANGE, ours)
    own = (BagOfWords.of("fox") + BagOfWords.of("now in the snow")) / np.sqrt(2)
    snow = (3 * own[1] + 3 * MEAN["snow"]) / 6
    assert "fox" not in order(result)
    assert priors(result)["snow"] == pytest.approx(snow, abs=1e-4)


async def test_the_reference_image_stays_and_takes_a_rank(library: Library) -> None:
    result = await ranked(library, Script({CHANGE.text: THREE}), CHANGE)
    assert order(result)[0] == "fox"


SNOW_NIGHT = Query(id="t", text="fox snow night")
"""Its instructions are three, and so are its predicates: is there fox? is there snow? is there night?"""


@pytest.mark.parametrize(
    ("yes", "expected"),
    [
        ({}, "fox snow night hare tree"),  # nothing counts: the first stage's order
        ({"hare.png": ["fox", "snow"], "night.png": ["snow"]}, "hare night fox snow tree"),  # 2, 1, 0, 0, 0
        ({"tree.png": ["night"], "night.png": ["fox"]}, "night tree fox snow hare"),  # 1 and 1: by the first stage
        ({"tree.png": ["fox", "snow", "night"], "fox.png": ["fox", "night"]}, "tree fox snow night hare"),  # 3, 2
    ],
)
async def test_predicates_are_counted(library: Library, yes: dict[str, list[str]], expected: str) -> None:
    script = Script({SNOW_NIGHT.text: THREE}, yes)
    result = await ranked(library, script, SNOW_NIGHT)
    assert order(result) == expected.split()
    assert len(script.asked("verify")) == 3 * 5


async def test_only_the_window_is_counted(library: Library) -> None:
    script = Script({SNOW_NIGHT.text: THREE}, {"tree.png": ["fox", "snow", "night"]})
    result = await ranked(library, script, SNOW_NIGHT, published(**{"verify.top_k": 4}))
    assert order(result) == ["fox", "snow", "night", "hare", "tree"]
    assert published().verify is not None and published().verify.top_k == 20  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("whole", "expected", "asked"),
    [
        ([], "fox snow night hare tree", ["fox", "snow", "night"]),  # three at most
        (["snow.png"], "snow fox night hare tree", ["fox", "snow"]),  # the first yes goes to the top and ends it
        (["fox.png", "snow.png"], "fox snow night hare tree", ["fox"]),
        (["hare.png"], "fox snow night hare tree", ["fox", "snow", "night"]),  # the fourth is never asked about
    ],
)
async def test_the_walk(library: Library, whole: list[str], expected: str, asked: list[str]) -> None:
    script = Script({TEXT.text: THREE}, whole=whole)
    result = await ranked(library, script, TEXT)
    assert order(result) == expected.split()
    walked = script.asked("walk")
    assert [text.partition(".png")[0] for text in walked] == asked
    assert all('"a fox in the snow"' in text for text in walked), "the user's own words, lower case, without the stop"


async def test_the_walk_beside_a_reference_asks_about_the_change(library: Library) -> None:
    script = Script({CHANGE.text: THREE})
    await ranked(library, script, CHANGE)
    first = script.asked("walk")[0]
    assert first.startswith("fox.png: The first image is the reference") and '"now in the snow"' in first
    assert script.asked("caption") and "Reference image: a fox in a tree\n" in script.asked("synthesize")[0]
    assert "Instruction: Now in the Snow.\n" in script.asked("decompose")[0], "predicates see the user's own words"


async def test_a_text_query_has_a_blank_reference(library: Library) -> None:
    script = Script({TEXT.text: THREE})
    await ranked(library, script, TEXT)
    assert script.asked("synthesize")[0].startswith("Reference image: a blank image\nInstruction: A Fox in the Snow.")


async def test_a_dialogue_goes_turn_by_turn(library: Library) -> None:
    """Turn 1 changes "a fox" to "fox night", turn 2 that to "fox night tree"; core and detailed do not count."""
    said = {"is it night? yes": ("hare", "hare", "fox night"), "Is there Snow? no.": ("rain", "rain", "fox night tree")}
    script = Script(said)
    result = await ranked(library, script, DIALOGUE)
    first, second = script.asked("synthesize")
    assert first.startswith("Reference image: a fox\nInstruction: is it night? yes\n")
    assert second.startswith("Reference image: fox night\nInstruction: Is there Snow? no.\n")
    assert result.synthesis is not None and result.synthesis.descriptions == ("fox night tree",)
    third = 0.5774
    assert priors(result) == pytest.approx(
        {"fox": third, "night": third, "tree": third, "snow": 0, "hare": 0}, abs=1e-4
    )
    assert [p.question for p in result.predicates] == ["is there it?"], "the last turn's instructions alone"
    assert "Instruction: Is there Snow? no.\n" in script.asked("decompose")[0]
    assert all('"is there snow? no"' in text for text in script.asked("walk")), "the last turn alone"
    (event,) = (event for event in result.trace if event.kind == "synthesized")
    assert event.data["turns"] == ["fox night", "fox night tree"]


async def test_a_turn_without_an_answer_adds_its_words(library: Library) -> None:
    def script(request: LMMRequest) -> Answer:
        text = request.messages[-1].content[-1].text  # type: ignore[union-attr]
        if "is it night?" in str(request.text) and "Is there Snow?" not in text:
            return "no JSON at all"
        return told(request)

    told = Script({"Is there Snow? no.": ("fox", "fox", "fox tree")})
    images = FolderCollection(Path(str(library.locator["root"])))
    result = await Agent(Resources(images, ScriptedLMM(script), library), published()).rerank(DIALOGUE)
    assert told.asked("synthesize")[0].startswith(
        "Reference image: a fox, is it night? yes\nInstruction: Is there Snow"
    )
    assert result.synthesis is not None and result.synthesis.comprehensive == "fox tree"


async def test_a_dialogue_before_its_first_turn_is_a_text(library: Library) -> None:
    script = Script({"a fox": THREE})
    result = await ranked(library, script, Query(id="d", text="a fox"))
    assert priors(result) == pytest.approx(MEAN, abs=1e-4)

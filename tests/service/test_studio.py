"""The factory that LangGraph Studio's server calls, without the server (`tests/studio` has that)."""

from __future__ import annotations

import importlib
import inspect
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime

import fieldscope.service.wiring.models
import fieldscope.service.wiring.studio
from fieldscope.agent.budget import Budget
from fieldscope.agent.graph import Agent
from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import ImageSource, Query
from fieldscope.service.wiring.fieldnotes import open_fieldnotes
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.wiring.studio import make_graph
from tests.service.conftest import FOX, World

ROOT = Path(fieldscope.service.wiring.studio.__file__).parents[2]


def running(**context: Any) -> _ExecutionRuntime[Any]:
    """What the server hands to the factory where a run begins."""
    return _ExecutionRuntime(access_context="threads.create_run", store=InMemoryStore(), context=context or None)


def looking() -> _ReadRuntime[Any]:
    """What it hands over where a graph is drawn, or its schemas are read."""
    return _ReadRuntime(access_context="assistants.read", store=InMemoryStore())


async def ranked(text: str = FOX, **context: Any) -> RerankResult:
    graph = await make_graph(running(**context))
    output = await graph.ainvoke({"text": text}, context=context or None)
    return RerankResult.model_validate(json.loads(json.dumps(output["result"])))


@pytest.fixture
def studio(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Studio over the small world, with nothing loaded yet. Its LMM must not be loaded on the event loop."""
    truthful = fieldscope.service.wiring.models.bundled_lmm

    def loaded(images: ImageSource) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return truthful(images)

    monkeypatch.setattr(fieldscope.service.wiring.studio, "bundled_lmm", loaded)
    fieldscope.service.wiring.studio._bundled.cache_clear()
    yield world
    fieldscope.service.wiring.studio._bundled.cache_clear()


def test_langgraph_json_points_at_an_asynchronous_factory() -> None:
    config = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
    assert config["env"]["LANGSMITH_TRACING"] == "false"
    (target,) = config["graphs"].values()
    path, _, name = target.partition(":")
    assert (ROOT / path).is_file()
    module = importlib.import_module("fieldscope." + path.removeprefix("./").removesuffix(".py").replace("/", "."))
    assert inspect.iscoroutinefunction(getattr(module, name))


async def test_forms_are_plain_and_a_text_is_enough() -> None:
    graph = await make_graph(looking())
    context: dict[str, Any] = json.loads(json.dumps(graph.get_context_jsonschema()))
    assert set(context["properties"]) == {"strategy", "max_calls", "max_tokens", "deadline"}
    assert "required" not in context and "$defs" not in context
    assert context["properties"]["strategy"]["default"] == "agent"
    asked = json.loads(json.dumps(graph.get_input_jsonschema()))
    assert set(asked["properties"]) == {"text", "id"} and asked["required"] == ["text"]
    assert "ranking" in json.dumps(graph.get_output_jsonschema())


@pytest.mark.parametrize("strategy", list_strategies())
async def test_the_stages_are_drawn_before_anything_is_loaded(strategy: str) -> None:
    graph = await make_graph(running(strategy=strategy))
    drawing = await graph.aget_graph(xray=True)
    nodes = {name.removeprefix("rerank:") for name in drawing.nodes}
    settings = load_strategy(strategy, prompts="fieldnotes")
    assert {"__start__", "retrieve", "rank", "explain", "__end__"} <= nodes
    for stage in ("synthesize", "decompose", "verify", "compare"):
        assert (stage in nodes) == (getattr(settings, stage) is not None)
    assert fieldscope.service.wiring.studio._bundled.cache_info().currsize == 0


async def test_a_run_ranks_as_the_agent_does(studio: World) -> None:
    strategy = load_strategy("yes-no", prompts="fieldnotes")
    images, library = open_fieldnotes("test", Settings())
    agent = Agent(
        fieldscope.service.wiring.studio.Resources(
            images, fieldscope.service.wiring.models.bundled_lmm(images), library
        ),
        strategy,
    )
    expected = await agent.rerank(Query(id="query", text=FOX), budget=Budget(max_calls=5))
    result = await ranked(strategy="yes-no", max_calls=5)
    assert result.ranking == expected.ranking and len(result.ranking) == 12
    assert result.ended == expected.ended == "verify"
    assert [event.kind for event in result.trace] == [event.kind for event in expected.trace]


async def test_every_run_has_a_budget_of_its_own(studio: World) -> None:
    context = {"strategy": "yes-no", "max_calls": 5}
    graph = await make_graph(running(**context))
    for run in (1, 2):
        await graph.ainvoke({"text": FOX}, context=context)
        assert len(studio.asked) == 5 * run
    await ranked(**context)
    assert len(studio.asked) == 15
    result = await ranked(strategy="yes-no")
    assert len(studio.asked) == 27 and result.ended is None
    assert result.ranking[0].image_id == "8"


async def test_without_a_context_the_default_strategy_has_no_limit(studio: World) -> None:
    result = await ranked()
    assert result.strategy == "agent" and result.ended is None and result.query_id == "query"


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"strategy": "yesno"}, r"unknown strategy 'yesno' \(did you mean 'yes-no'\?\); known: agent, "),
        ({"max_call": 5}, r"context: unknown key 'max_call' \(did you mean 'max_calls'\?\)"),
        ({"max_calls": -1}, "context: max_calls: "),
        ({"deadline": float("inf")}, "context: deadline: "),
    ],
)
async def test_a_context_that_can_not_be_used_says_why_in_an_error_that_the_server_shows(
    context: dict[str, Any], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        await make_graph(running(**context))


async def test_names_of_the_servers_own_are_passed_over() -> None:
    await make_graph(running(__event_streaming_v2=True))


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("text", "words"), [("a purple fox", "has never seen this word: 'purple'"), (" ", "must be words")]
)
async def test_a_query_that_can_not_be_asked_says_why(text: str, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        await ranked(text, strategy="yes-no")

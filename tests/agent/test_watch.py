"""Whoever watches a query sees every event of its trace once, as it happens, and changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import list_strategies, load_strategy
from fieldscope.agent.trace import EVENTS
from fieldscope.agent.types import RerankResult, TraceEvent
from fieldscope.core.types import Candidate, Query
from fieldscope.retrieval.collection import FolderCollection
from tests.agent.oracle import draw_cases, oracle_of, paint, scorer_of

UNSURE = Calibration(spread=5.0)  # so that there is something to compare


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("painted"))


def identity(event: TraceEvent) -> str:
    return event.model_dump_json()


def timeless(result: RerankResult) -> dict[str, object]:
    """A result but for when things happened."""
    told = result.model_dump()
    kinds = ("verdicts", "comparisons", "reasons", "calls", "scores")
    for question in (question for kind in kinds for question in told.get(kind, ())):
        question.pop("latency")
    for event in told["trace"]:
        event.pop("at")
        event["data"].pop("seconds", None)
        event["data"].pop("latency", None)
    return told


@pytest.mark.parametrize("strategy", list_strategies())
@pytest.mark.parametrize("case", range(3))
async def test_every_event_is_seen_once_and_nothing_changes(images: FolderCollection, strategy: str, case: int) -> None:
    drawn = draw_cases(3)[case]  # a text, a composed and a dialogue query

    def make_agent() -> Agent:  # each with a scorer that remembers nothing yet
        resources = Resources(
            images, oracle_of(images), max_concurrency=4, calibration=UNSURE, scorer=scorer_of(images)
        )
        return Agent(resources, load_strategy(strategy, prompts="fieldnotes"))

    seen: list[TraceEvent] = []
    watched = await make_agent().rerank(drawn.query, drawn.candidates, watch=seen.append)
    assert Counter(map(identity, seen)) == Counter(map(identity, watched.trace))
    assert timeless(watched) == timeless(await make_agent().rerank(drawn.query, drawn.candidates))


async def test_events_come_in_the_order_of_the_stages(images: FolderCollection) -> None:
    case = draw_cases(1)[0]
    agent = Agent(
        Resources(images, oracle_of(images), calibration=UNSURE), load_strategy("agent", prompts="fieldnotes")
    )
    seen: list[TraceEvent] = []
    result = await agent.rerank(case.query, case.candidates, watch=seen.append)
    first = {kind: at for at, kind in reversed(list(enumerate(event.kind for event in seen)))}
    stages = ["decomposed", "planned", "verified", "assessed", "paired", "compared", "ranked", "explained"]
    assert [first[kind] for kind in stages] == sorted(first[kind] for kind in stages)
    assert first.keys() <= EVENTS.keys()
    assert {"synthesized", "started", "retrieved"} == {event.kind for event in seen[: first["decomposed"]]}
    synthesized = next(event for event in seen if event.kind == "synthesized")
    assert result.synthesis is not None
    assert synthesized.data["thought"] == result.synthesis.thought


async def test_events_are_told_before_the_ranking_stands(images: FolderCollection) -> None:
    """The first verdict is seen while others are still to be asked."""
    lmm = ScriptedLMM(lambda _: 0.5)
    agent = Agent(Resources(images, lmm, max_concurrency=1), load_strategy("yes-no", prompts="fieldnotes"))
    asked: list[int] = []

    def watch(event: TraceEvent) -> None:
        if event.kind == "verified":
            asked.append(len(lmm.requests))

    candidates = tuple(Candidate(image_id, 0.0) for image_id in images.ids()[:6])
    await agent.rerank(Query(id="q", text="crab"), candidates, watch=watch)
    assert asked[0] < 6 == len(lmm.requests)
    assert len(asked) == 6


async def test_what_failed_unforeseen_and_what_was_not_asked_is_seen_too(images: FolderCollection) -> None:
    lmm = ScriptedLMM(lambda request: RuntimeError("nobody foresaw this") if request.images else 0.9)
    agent = Agent(Resources(images, lmm), load_strategy("yes-no", prompts="fieldnotes"))
    candidates = tuple(Candidate(image_id, 0.0) for image_id in images.ids()[:6])
    seen: list[TraceEvent] = []
    result = await agent.rerank(Query(id="q", text="crab"), candidates, budget=Budget(max_calls=4), watch=seen.append)
    assert Counter(map(identity, seen)) == Counter(map(identity, result.trace))
    assert Counter(state for e in seen if e.kind == "verified" for state in e.data["states"]) == {"unknown": 4}
    assert result.ended == "verify"


async def test_what_the_watcher_raises_ends_the_query(images: FolderCollection) -> None:
    def watch(event: TraceEvent) -> None:
        raise ConnectionResetError("nobody listens any more")

    agent = Agent(Resources(images, oracle_of(images)), load_strategy("yes-no", prompts="fieldnotes"))
    with pytest.raises(ConnectionResetError):
        await agent.rerank(Query(id="q", text="crab"), (Candidate("00.png", 0.0),), watch=watch)

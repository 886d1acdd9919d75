"""Predicates of a person's own: read from files, strategies and grids, weighed, and seen before images are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fieldscope.agent.calibration import UNCALIBRATED
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.nodes.decompose import fixed_predicates
from fieldscope.agent.posterior import Belief
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.predicates import GivenPredicate, read_given
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import StrategyError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.tuning.grid import load_grid
from tests.agent.oracle import oracle_of, paint
from tests.service.api.facts import painted

QUERY = Query(id="q1", text="crab, snow")
CRAB, SNOW, NET = (GivenPredicate(question=f"is there {fact}?") for fact in ("crab", "snow", "net"))


async def test_changing_one_predicate_asks_only_that_one(tmp_path: Path) -> None:
    images = paint(tmp_path)
    oracle = oracle_of(images)
    asked: list[str] = []
    generate = oracle.generate

    async def noted(request: LMMRequest) -> object:
        asked.append(str(request.messages[-1].content[-1]))
        return await generate(request)

    oracle.generate = noted  # type: ignore[method-assign,assignment]
    store = MemoryStore()
    agent = Agent(Resources(images, CachedLMM(oracle, store)), load_strategy("predicates", prompts="fieldnotes"))
    candidates = [Candidate(image_id, 0.0) for image_id in images.ids()[:6]]

    derived, calls, flags = await agent.derive(QUERY)
    assert not flags
    assert {each.question for each in derived} == {"is there crab?", "is there snow?"}
    assert len(calls) == len(asked) == 2
    first = await agent.rerank(QUERY, candidates)
    assert sum(call.cached for call in first.calls) == 2, "what was derived before is not asked again"

    asked.clear()
    await agent.rerank(QUERY, candidates, predicates=fixed_predicates([CRAB, SNOW]))
    assert asked == []
    changed = await agent.rerank(QUERY, candidates, predicates=fixed_predicates([CRAB, NET]))
    assert len(asked) == 6 and all("net" in each for each in asked)
    assert [each.question for each in changed.predicates if each.kind != "query"] == ["is there crab?", "is there net?"]
    asked.clear()
    heavier = fixed_predicates([CRAB, NET.model_copy(update={"weight": 3.0})])
    assert heavier[1].id in {each.id for each in changed.predicates}
    await agent.rerank(QUERY, candidates, predicates=heavier)
    assert asked == [], "a weight changes no question"


def belief(weights: Sequence[float] | None) -> Belief:
    predicates = fixed_predicates([CRAB, SNOW])
    holds = np.array([[0.9, 0.2], [0.2, 0.9]])
    return Belief(
        candidates=(Candidate("crab", 0.0), Candidate("snow", 0.0)),
        predicates=predicates,
        holds=holds,
        finished=np.ones((2, 2), dtype=np.bool_),
        pass_rates=np.array([0.4, 0.4]),
        whole=np.zeros(2, dtype=np.bool_),
        prior=np.zeros(2),
        calibration=UNCALIBRATED,
        weights=None if weights is None else np.array(weights),
    )


def test_weights_decide_between_images_that_show_half_each() -> None:
    same = belief(None).log_odds
    assert same[0] == pytest.approx(same[1]) and belief((1.0, 1.0)).log_odds == pytest.approx(same)
    assert belief((3.0, 1.0)).order() == [0, 1] and belief((1.0, 3.0)).order() == [1, 0]
    alone = belief((1.0, 0.0))
    assert alone.order() == [0, 1]
    for weighed in (belief((3.0, 1.0)), alone):
        for at in (0, 1):
            assert sum(weighed.contributions(at).values()) == pytest.approx(float(weighed.log_odds[at]))


def test_a_file_has_questions_or_mappings(tmp_path: Path) -> None:
    file = tmp_path / "predicates.yaml"
    file.write_text("- is there crab?\n- question: is there net?\n  expected: no\n  weight: 2\n")
    assert read_given(file) == (CRAB, GivenPredicate(question="is there net?", expected="no", weight=2.0))
    file.write_text('{"predicates": ["is there crab?"]}')
    assert read_given(file) == (CRAB,)
    for text in ("", "- {question: ' '}", "is there crab?", "- {question: x?, expected: maybe}", "[", "- {weight: 2}"):
        file.write_text(text)
        with pytest.raises(StrategyError, match=r"predicates\.yaml"):
            read_given(file)


def strategy_file(folder: Path, lines: str) -> Path:
    from fieldscope.agent.strategies import strategy as shipped

    text = (Path(shipped.__file__).parent / "predicates.yaml").read_text()
    path = folder / "mine.yaml"
    path.write_text(text.replace("name: predicates", "name: mine") + lines)
    return path


async def test_a_strategy_asks_the_predicates_of_its_queries(tmp_path: Path) -> None:
    before = load_strategy(strategy_file(tmp_path, ""), prompts="fieldnotes")
    strategy = load_strategy(
        strategy_file(tmp_path, "predicates:\n  q1: ['is there net?', {question: 'is there crab?', expected: no}]\n"),
        prompts="fieldnotes",
    )
    assert before.fingerprint == load_strategy("predicates", prompts="fieldnotes").fingerprint != strategy.fingerprint
    assert Strategy.model_validate(strategy.model_dump(mode="json", exclude_none=True)) == strategy
    images = painted(tmp_path / "pictures")
    agent = Agent(Resources(images, oracle_of(images)), strategy)
    candidates = [Candidate(image_id, 0.0) for image_id in images.ids()[:4]]
    found = await agent.rerank(QUERY, candidates)
    assert [(each.question, each.expected) for each in found.predicates if each.kind != "query"] == [
        ("is there net?", "yes"), ("is there crab?", "no"),
    ]  # fmt: skip
    other = await agent.rerank(QUERY.model_copy(update={"id": "q2"}), candidates)
    assert {each.question for each in other.predicates if each.kind != "query"} == {"is there crab?", "is there snow?"}


def test_a_grid_varies_predicates_and_names_their_files(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("q1: ['is there net?']\n")
    grid = tmp_path / "grid.yaml"
    grid.write_text("base: predicates\npredicates: [null, ours.yaml]\n")
    plain, ours = load_grid(grid)
    assert plain.strategy.predicates is None and ours.strategy.predicates == {"q1": (NET,)}
    assert "predicates=ours.yaml" in ours.strategy.name

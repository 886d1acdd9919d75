"""Closer looks: found where a subject is small, taken where they matter, and never trusted blindly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration, LookWeights
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import RerankResult, Verdict
from fieldscope.core.errors import LMMResponseError
from fieldscope.core.looks import Look, Region, read_look
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.looked_at import LookedAt
from fieldscope.retrieval.regions import Proposal
from tests.agent.large_frames import (
    CANDIDATES,
    IMAGES,
    QUERY,
    Reddest,
    paint_frames,
    red,
    short_sighted,
    strategy_with,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_frames(tmp_path_factory.mktemp("large-frames"))


class Bench:
    """The pictures, a model, and an agent that looks closer."""

    def __init__(self, folder: Path, answer: Callable[[LookedAt], Callable[[LMMRequest], object]]) -> None:
        self.images = LookedAt(FolderCollection(folder))
        self.lmm = ScriptedLMM(answer(self.images))  # type: ignore[arg-type]
        self.proposer = Reddest(self.images)

    async def ranked(
        self, strategy: Strategy, calibration: Calibration | None = None, budget: Budget | None = None
    ) -> RerankResult:
        resources = Resources(self.images, self.lmm, calibration=calibration, regions=self.proposer)
        return await Agent(resources, strategy).rerank(QUERY, CANDIDATES, budget=budget)


def looks_of(result: RerankResult) -> list[Verdict]:
    return [verdict for verdict in result.verdicts if verdict.look is not None]


async def test_a_subject_that_only_a_crop_shows_is_found(folder: Path) -> None:
    bench = Bench(folder, short_sighted)
    plain = await bench.ranked(strategy_with().model_copy(update={"inspect": None}))
    assert not looks_of(plain) and plain.ranking[0].image_id == "0.png"
    asked_before = len(bench.lmm.requests)
    result = await bench.ranked(strategy_with())
    assert {ranked.image_id for ranked in result.ranking[:2]} == {"3.png", "9.png"}
    assert len(bench.lmm.requests) - asked_before <= IMAGES * 3
    # The look is named wherever it was taken: in the verdict, the request and the trace.
    look = next(verdict for verdict in looks_of(result) if verdict.image_id == "3.png" and verdict.p_yes > 0.9)
    assert look.look is not None and look.look.region == Region(left=0.5, top=0.0, right=1.0, bottom=0.5)
    assert read_look(look.shown) == ("3.png", Look(region=look.look.region))
    assert any(event.kind == "inspected" and "3.png" in event.data["regions"] for event in result.trace)


async def test_what_looks_changed_is_a_contribution_and_all_sum_to_the_score(folder: Path) -> None:
    result = await Bench(folder, short_sighted).ranked(strategy_with())
    seen = {verdict.image_id for verdict in looks_of(result)}
    for ranked in result.ranking:
        assert sum(ranked.contributions.values()) == pytest.approx(ranked.score)
        assert ("looks" in ranked.contributions) == (ranked.image_id in seen)
    assert result.ranking[0].contributions["looks"] > 0


async def test_crops_that_mislead_do_not_decide(folder: Path) -> None:
    """A model that takes any crop of three pictures for the subject, and knows the subject in whole pictures."""

    def fooled(images: LookedAt) -> Callable[[LMMRequest], float]:
        def answer(request: LMMRequest) -> float:
            seen = read_look(request.images[0].image_id)
            if seen:
                return 0.9 if seen[0] in ("0.png", "1.png", "2.png") else 0.1
            return 0.98 if red(images.load(request.images[0].image_id)) > 0 else 0.05

        return answer

    result = await Bench(folder, fooled).ranked(strategy_with(stop_below=0.0001))
    assert looks_of(result)
    assert {ranked.image_id for ranked in result.ranking[:2]} == {"3.png", "9.png"}


async def test_pictures_whose_answer_is_clear_are_left_alone(folder: Path) -> None:
    sure = Bench(
        folder, lambda images: lambda request: 0.9999 if red(images.load(request.images[0].image_id)) else 1e-6
    )
    trusted = Calibration(prior_weight=0.5, bias=-1.0, miss_odds=1e-5, false_alarm_odds=1e-5)
    result = await sure.ranked(strategy_with(stop_below=0.01), trusted)
    assert looks_of(result) == []


async def test_a_calibration_says_which_look_pays(folder: Path) -> None:
    shared = {"bias": 0.0, "prior_weight": 0.5, "miss_odds": 0.001, "false_alarm_odds": 0.03}
    weights = (0.5, 0.5, 0.0, 0.5, 0.5)
    enhanced = LookWeights(
        enhanced=1, weights=weights, moves={"enhanced": 2.0}, moves_small={"enhanced": 2.0}, **shared
    )
    useless = LookWeights(regions=1, weights=weights, moves={"regions": 0.0}, moves_small={"regions": 0.0}, **shared)
    bench = Bench(folder, lambda images: lambda request: 0.5)
    fitted = Calibration(prior_weight=0.5, looks=(enhanced, useless))
    looks = looks_of(await bench.ranked(strategy_with(enhance=True), fitted))
    assert looks and all(look.look == Look(enhance=True) for look in looks)


@pytest.mark.parametrize("calls", range(0, IMAGES * 3, 5))
async def test_a_budget_is_kept_and_what_it_forbids_is_not_asked(folder: Path, calls: int) -> None:
    bench = Bench(folder, short_sighted)
    result = await bench.ranked(strategy_with(), budget=Budget(max_calls=calls))
    assert len(bench.lmm.requests) <= calls
    assert len(result.ranking) == IMAGES
    assert all(verdict.state != "unknown" for verdict in result.verdicts)


async def test_with_always_every_look_is_taken_once(folder: Path) -> None:
    bench = Bench(folder, short_sighted)
    result = await bench.ranked(strategy_with(always=True, enhance=True, enhance_regions=True))
    shown = [verdict.shown for verdict in looks_of(result)]
    assert len(shown) == len(set(shown)) == IMAGES * 5


async def test_failed_looks_are_unknown_and_change_nothing(folder: Path) -> None:
    def failing(images: LookedAt) -> Callable[[LMMRequest], object]:
        def answer(request: LMMRequest) -> object:
            seen = read_look(request.images[0].image_id)
            return LMMResponseError("the server sent no answer; restart it") if seen else 0.3

        return answer

    bench = Bench(folder, failing)
    result = await bench.ranked(strategy_with())
    plain = await bench.ranked(strategy_with().model_copy(update={"inspect": None}))
    assert {look.state for look in looks_of(result)} == {"unknown"}
    assert [(r.image_id, r.score) for r in result.ranking] == [(r.image_id, r.score) for r in plain.ranking]


async def test_without_a_proposer_only_the_enhanced_picture_is_looked_at(folder: Path) -> None:
    bench = Bench(folder, short_sighted)
    agent = Agent(Resources(bench.images, bench.lmm), strategy_with(enhance=True, stop_below=0.0001))
    looks = looks_of(await agent.rerank(QUERY, CANDIDATES))
    assert looks and {look.look for look in looks} == {Look(enhance=True)}


async def test_a_proposer_that_finds_no_image_readable_costs_nothing(folder: Path) -> None:
    class Blind:
        def propose(self, *_: object, **__: object) -> Mapping[str, tuple[Proposal, ...]]:
            return {}

    bench = Bench(folder, short_sighted)
    resources = replace(Resources(bench.images, bench.lmm), regions=Blind())
    result = await Agent(resources, strategy_with(stop_below=0.0001)).rerank(QUERY, CANDIDATES)
    assert looks_of(result) == [] and len(bench.lmm.requests) == IMAGES

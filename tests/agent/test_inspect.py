"""Closer looks: found where a subject is small, taken where they matter, and never trusted blindly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration, LookWeights
from fieldscope.agent.closer_looks import answerable
from fieldscope.agent.context import Context
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.nodes.inspect import inspect
from fieldscope.agent.nodes.plan import plan
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankState, VerifyTask
from fieldscope.agent.strategies.inspection import Inspect
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import Predicate, RerankResult, Verdict
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
    weights = (0.5, 0.5, 0.0, 0.0, 0.5, 0.5)
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
    assert len(shown) == len(set(shown)) == IMAGES * 6


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


async def test_an_image_without_a_region_has_no_look_unless_none_is_asked_for(folder: Path) -> None:
    bench = Bench(folder, short_sighted)
    without = Resources(bench.images, bench.lmm)
    agent = Agent(without, strategy_with(enhance=True, stop_below=0.0001))
    assert looks_of(await agent.rerank(QUERY, CANDIDATES)) == []
    agent = Agent(without, strategy_with(regions=0, enhance=True, stop_below=0.0001))
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


SUBJECT = Predicate(id="s", question="is there a bird?", kind="subject")
COUNT = Predicate(id="n", question="are there two birds?", kind="count")
HABITAT = Predicate(id="h", question="is it on a reef?", kind="habitat")
ABSENCE = Predicate(id="a", question="is there a boat?", expected="no", kind="absence")
PARTS = (SUBJECT, COUNT, HABITAT, ABSENCE)
REGION, ALL = Look(region=Region(left=0, top=0, right=0.5, bottom=0.5)), Look(enhance=True)


def test_what_can_be_asked_of_a_look_depends_on_the_kind_of_predicate() -> None:
    whole = Predicate(id="query", question="is it a red bird?")
    assert answerable((whole, *PARTS), REGION) == (whole,)
    assert answerable(PARTS, REGION) == (SUBJECT,)
    assert answerable(PARTS, REGION.model_copy(update={"proposed_by": "around"})) == (SUBJECT, COUNT)
    assert answerable(PARTS, ALL) == PARTS
    assert answerable((HABITAT, ABSENCE), REGION) == ()


async def test_counts_are_asked_of_the_region_that_holds_all_subjects(folder: Path) -> None:
    class Corners:
        def propose(self, texts: object, image_ids: Sequence[str], *_: object) -> Mapping[str, tuple[Proposal, ...]]:
            one = Region(left=0.0, top=0.0, right=0.25, bottom=0.25)
            other = Region(left=0.5, top=0.5, right=0.75, bottom=0.75)
            return {image_id: (Proposal(one, 0.9), Proposal(other, 0.8)) for image_id in image_ids}

    resources = Resources(LookedAt(FolderCollection(folder)), None, regions=Corners())
    base = load_strategy("predicates", prompts="fieldnotes")
    assert base.verify is not None
    strategy = base.model_copy(
        update={"verify": base.verify.model_copy(update={"whole": None}), "inspect": Inspect(always=True)}
    )
    answers = [Verdict(predicate=p.id, image_id="3.png", state="answered", p_yes=0.4, p_expected=0.4) for p in PARTS]
    state = RerankState(query=QUERY, candidates=CANDIDATES[3:4], predicates=PARTS, verdicts=tuple(answers))
    looks = (await inspect(state, Context(resources, strategy)))["looks"]
    around = Region(left=0.0, top=0.0, right=0.75, bottom=0.75)
    assert [look.region for look in looks[0].looks][-1] == around
    following = plan(state.model_copy(update={"looks": looks}), Context(resources, strategy))
    tasks = [
        (task.look.region, task.predicates) for task in following.tasks if isinstance(task, VerifyTask) and task.look
    ]
    assert [predicates for _, predicates in tasks] == [(SUBJECT,), (SUBJECT,), (SUBJECT, COUNT)]
    assert tasks[-1][0] == around


async def test_a_proposer_is_not_trusted(folder: Path) -> None:
    """It proposes for images that nobody asked about, the same region twice, and more than were wanted."""

    class Hostile:
        def propose(self, texts: object, image_ids: Sequence[str], *_: object) -> Mapping[str, tuple[Proposal, ...]]:
            region = Region(left=0.0, top=0.0, right=0.5, bottom=0.5)
            return {name: (Proposal(region, 9.9),) * 50 for name in (*image_ids, "../secret.png", "3.png")}

    bench = Bench(folder, short_sighted)
    resources = Resources(bench.images, bench.lmm, regions=Hostile())
    result = await Agent(resources, strategy_with(stop_below=0.0001)).rerank(QUERY, CANDIDATES)
    shown = [verdict.shown for verdict in looks_of(result)]
    assert len(shown) == len(set(shown)) <= IMAGES
    assert {ranked.image_id for ranked in result.ranking} == {each.image_id for each in CANDIDATES}


async def test_a_sure_no_about_what_may_be_small_rules_no_look_out_before_looks_were_fitted(folder: Path) -> None:
    """A calibration of large subjects takes the model's word for it that there is no bird."""

    def sure(images: LookedAt) -> Callable[[LMMRequest], float]:
        def answer(request: LMMRequest) -> float:
            return 0.97 if red(images.load(request.images[0].image_id)) > 0.03 else 1e-7

        return answer

    of_large = Calibration(prior_weight=0.5, bias=-1.0, miss_odds=1e-6, nothing_below=0.0)
    small = [replace(each, prior=0.0, standing=each.standing) for each in CANDIDATES]  # regions are more similar
    bench = Bench(folder, sure)
    resources = Resources(bench.images, bench.lmm, calibration=of_large, regions=bench.proposer)
    result = await Agent(resources, strategy_with()).rerank(QUERY, small)
    assert {"3.png", "9.png"} <= {verdict.image_id for verdict in looks_of(result)}
    assert {ranked.image_id for ranked in result.ranking[:2]} == {"3.png", "9.png"}

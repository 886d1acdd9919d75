"""P(yes) without log-probabilities: as the share of plain answers, and as the model states it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, Tokens
from fieldscope.agent.lmm.cached import CachedLMM
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.cache.store import MemoryStore
from fieldscope.core.errors import StrategyError
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.tuning.estimate import estimate
from fieldscope.retrieval.collection import FolderCollection

QUERY = Query(id="q1", text="two red crabs on a beach")
P = {f"{n}.png": p for n, p in enumerate([0.1, 0.2, 0.9, 0.3, 0.8, 0.4, 0.7, 0.6])}
BY_P = ["2.png", "4.png", "6.png", "7.png", "5.png", "3.png", "1.png", "0.png"]
USED = Tokens(prompt_tokens=10, completion_tokens=2)
STATED = {"verify.prompt": "state_yes_no"}

Candidates = tuple[Candidate, ...]


def words(request: LMMRequest) -> LMMResponse:
    """Of 10 answers about a picture, those with the lowest sample numbers say yes, as many as its P has tenths."""
    assert request.top_logprobs == 0
    (image,) = request.images
    p = P[image.image_id]
    if request.json_schema is not None:
        return LMMResponse(text=f'{{"probability": {p}}}', usage=USED)
    return LMMResponse(text="Yes." if request.sample < round(10 * p) else "No, it does not.", usage=USED)


def agent(pictures: Path, lmm: object, settings: dict[str, object], name: str = "yes-no", **deps: object) -> Agent:
    resources = Resources(images=FolderCollection(pictures), lmm=lmm, **deps)  # type: ignore[arg-type]
    return Agent(resources, load_strategy(name, settings))


async def test_the_smoothed_share_of_plain_answers(pictures: Path, candidates: Candidates) -> None:
    lmm = ScriptedLMM(words)
    result = await agent(pictures, lmm, {"verify.samples": 10}).rerank(QUERY, candidates)
    assert [ranked.image_id for ranked in result.ranking] == BY_P
    for verdict in result.verdicts:
        assert verdict.p_yes == pytest.approx((round(10 * P[verdict.image_id]) + 0.5) / 11)
        assert verdict.mode == "samples" and [draw.sample for draw in verdict.draws] == list(range(10))
        assert (verdict.prompt_tokens, verdict.completion_tokens) == (100, 20)
        assert len({draw.request_key for draw in verdict.draws}) == 10
    assert len(result.asked) == len(lmm.requests) == 80
    assert {request.temperature for request in lmm.requests} == {1.0}


async def test_a_stated_probability(pictures: Path, candidates: Candidates) -> None:
    lmm = ScriptedLMM(words)
    result = await agent(pictures, lmm, STATED).rerank(QUERY, candidates)
    assert [ranked.image_id for ranked in result.ranking] == BY_P
    assert {v.image_id: v.p_yes for v in result.verdicts} == pytest.approx(P)
    assert {v.mode for v in result.verdicts} == {"stated"} and len(lmm.requests) == 8
    assert all(request.json_schema and request.max_tokens > 1 for request in lmm.requests)


async def test_draws_are_remembered_and_asked_for_once(pictures: Path, candidates: Candidates) -> None:
    store, lmm = MemoryStore(), ScriptedLMM(words)
    for settings in ({"verify.samples": 4}, STATED):
        first = await agent(pictures, CachedLMM(lmm, store), settings).rerank(QUERY, candidates)
        asked = len(lmm.requests)
        again = await agent(pictures, CachedLMM(lmm, store, "replay"), settings).rerank(QUERY, candidates)
        assert len(lmm.requests) == asked and again.ranking == first.ranking
        assert all(verdict.cached for verdict in again.verdicts)


async def test_answers_that_say_nothing_are_left_out_and_none_at_all_is_unknown(
    pictures: Path, candidates: Candidates
) -> None:
    def hesitant(request: LMMRequest) -> LMMResponse:
        (image,) = request.images
        silent = image.image_id == "0.png" or request.sample == 0
        return LMMResponse(text="It depends.") if silent else words(request)

    result = await agent(pictures, ScriptedLMM(hesitant), {"verify.samples": 5}).rerank(QUERY, candidates)
    by_image = {verdict.image_id: verdict for verdict in result.verdicts}
    assert by_image["0.png"].state == "unknown" and "neither yes nor no" in (by_image["0.png"].error or "")
    assert by_image["0.png"].p_yes is None
    assert by_image["2.png"].p_yes == pytest.approx(4.5 / 5)
    assert Counter(draw.state for draw in by_image["2.png"].draws) == {"answered": 4, "unknown": 1}
    assert [flag for flag in result.flags if "gave no answer" in flag] == ["12 of 40 calls gave no answer"]


@pytest.mark.parametrize("text", ['{"probability": 85}', '{"probability": "high"}', "0.9", "{}", ""])
async def test_what_is_no_probability_is_unknown_and_not_remembered(
    text: str, pictures: Path, candidates: Candidates
) -> None:
    store = MemoryStore()
    lmm = ScriptedLMM(lambda request: LMMResponse(text=text))
    for asked in (8, 16):
        result = await agent(pictures, CachedLMM(lmm, store), STATED).rerank(QUERY, candidates)
        assert {verdict.state for verdict in result.verdicts} == {"unknown"}
        assert len(lmm.requests) == asked


@pytest.mark.parametrize(("most", "whole", "left"), [(24, 6, 0), (10, 2, 2), (3, 0, 3), (0, 0, 0)])
async def test_a_budget_pays_for_whole_questions_and_begins_the_last(
    most: int, whole: int, left: int, pictures: Path, candidates: Candidates
) -> None:
    lmm = ScriptedLMM(words)
    result = await agent(pictures, lmm, {"verify.samples": 4}).rerank(QUERY, candidates, budget=Budget(max_calls=most))
    draws = [sum(draw.state == "answered" for draw in verdict.draws) for verdict in result.verdicts]
    assert (draws.count(4), sum(n for n in draws if n < 4)) == (whole, left)
    assert len(lmm.requests) == most and result.ended == "verify"


async def test_a_first_answer_stands_where_the_budget_forbids_the_thought(
    pictures: Path, candidates: Candidates
) -> None:
    def answer(request: LMMRequest) -> float:
        return P[request.images[0].image_id]

    settings = {"verify.reason": {"whole": "reason_yes_no", "within": [0.0, 1.0], "thoughts": 2}, "verify.top_k": 1}
    built = agent(pictures, ScriptedLMM(answer), settings)
    result = await built.rerank(QUERY, candidates, budget=Budget(max_calls=1))
    (verdict,) = [verdict for verdict in result.verdicts if verdict.image_id == "0.png"]
    assert verdict.p_yes == pytest.approx(0.1) and not verdict.reasoned
    assert [draw.state for draw in verdict.draws] == ["answered", "not_asked", "not_asked"]
    assert result.ended == "verify"


async def test_pairs_and_sets_are_ranked_from_plain_choices(pictures: Path, candidates: Candidates) -> None:
    def best(request: LMMRequest) -> LMMResponse:
        assert request.top_logprobs == 0 and request.max_tokens == 8
        shown = [P[image.image_id] for image in request.images]
        return LMMResponse(text=f"**{'ABCD'[shown.index(max(shown))]}**")

    unsure = Calibration(spread=5.0)
    for name in ("pairwise", "setwise"):
        settings = {"compare.top_logprobs": 0, "compare.max_tokens": 8}
        result = await agent(pictures, ScriptedLMM(best), settings, name, calibration=unsure).rerank(QUERY, candidates)
        assert {c.mode for c in result.comparisons} == {"samples"}
        assert {c.state for c in result.comparisons} == {"answered"}
        assert all(max(c.probabilities) in (0.75, pytest.approx(0.5)) for c in result.comparisons)
        assert result.ranking[0].image_id == "2.png"
        lowest = [ranked.image_id for ranked in result.ranking][-3:]
        assert "2.png" not in lowest and "4.png" not in lowest


def test_a_calibration_belongs_to_its_way_of_reading() -> None:
    def fitted(strategy: Strategy) -> Calibration:
        return Calibration(key=calibration_key("m", strategy, None))

    reason = {"verify.reason": {"whole": "reason_yes_no"}}
    thoughts = {"verify.reason": {"whole": "reason_yes_no", "thoughts": 4}}
    variants: Sequence[dict[str, object]] = (
        {}, {"verify.samples": 8}, {"verify.samples": 4}, reason, thoughts,
        {"verify.prompt": "state_predicate", "verify.whole": "state_yes_no"}, {"compare.top_logprobs": 0},
    )  # fmt: skip
    strategies = [load_strategy("agent", variant) for variant in variants]
    fits = [
        [fitted(one).fits(calibration_key("m", other, None)) for other in strategies] for one in strategies
    ]  # fmt: skip
    assert fits == [[one is other for other in strategies] for one in strategies]
    plain = calibration_key("m", load_strategy("agent"), None)
    assert set(plain.model_dump(mode="json")) == {"model", "prompts", "comparing", "encoder"}


def test_a_dry_run_counts_every_draw() -> None:
    def calls(name: str, settings: dict[str, object]) -> dict[str, float]:
        stages = estimate([QUERY], [10], load_strategy(name, settings)).stages
        return {stage: spending.calls for stage, spending in stages.items() if stage in ("verify", "reason")}

    assert calls("yes-no", {"verify.samples": 8}) == {"verify": 80}
    assert calls("yes-no", STATED) == {"verify": 10}
    assert calls("reasoned", {"verify.reason.thoughts": 3}) == {"reason": 30}
    within = {"verify.reason.within": [0.1, 0.9]}
    assert calls("reasoned", within) == {"verify": 10, "reason": 10}
    assert load_strategy("reasoned", within).open_ended and not load_strategy("reasoned").open_ended


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"verify.reason": {}}, "has no prompt"),
        ({"verify.reason": {"prompt": "reason_predicate"}}, "this strategy asks the whole query"),
        ({"verify.reason": {"whole": "reason_yes_no", "within": [0.9, 0.1]}}, "change the bounds"),
        (STATED | {"verify.samples": 4}, "goes without `samples`"),
        (STATED | {"verify.reason": {"whole": "reason_yes_no"}}, "goes without `samples` and `reason`"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, object], says: str) -> None:
    with pytest.raises(StrategyError, match=says):
        load_strategy("yes-no", settings)

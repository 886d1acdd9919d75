"""A model that fails again and again, and budgets that end early: every query still gets a ranking."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import pytest

from fieldscope.agent.budget import Budget
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Candidate
from fieldscope.retrieval.collection import FolderCollection
from tests.agent.faulty import INJECTED, SHARE, Faulty
from tests.agent.oracle import draw_cases, oracle_of, paint

STRATEGIES = ("agent", "predicates", "imagescope", "pairwise", "setwise")
QUERIES = 30


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> FolderCollection:
    return paint(tmp_path_factory.mktemp("facts"))


@pytest.fixture
def faulty(images: FolderCollection) -> Faulty:
    return Faulty(oracle_of(images))


def agent_of(strategy: str, images: FolderCollection, lmm: LMM) -> Agent:
    return Agent(Resources(images=images, lmm=lmm), load_strategy(strategy, prompts="fieldnotes"))


def average_precision(order: Sequence[str], relevant: Collection[str]) -> float:
    ranks = [rank for rank, image_id in enumerate(order, start=1) if image_id in relevant]
    return sum(hits / rank for hits, rank in enumerate(ranks, start=1)) / len(relevant)


def order(result: RerankResult) -> list[str]:
    return [ranked.image_id for ranked in result.ranking]


def prior_order(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.image_id for candidate in sorted(candidates, key=lambda candidate: -candidate.prior)]


def assert_strict(result: RerankResult, candidates: Sequence[Candidate]) -> None:
    assert sorted(order(result)) == sorted(candidate.image_id for candidate in candidates)
    assert [ranked.rank for ranked in result.ranking] == list(range(1, len(candidates) + 1))
    assert all(above.score > below.score for above, below in itertools.pairwise(result.ranking))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_with_a_truthful_model_nothing_is_unknown_and_the_matches_come_first(
    images: FolderCollection, strategy: str
) -> None:
    agent = agent_of(strategy, images, oracle_of(images))
    for case in draw_cases(6):
        result = await agent.rerank(case.query, case.candidates)
        assert {question.state for question in result.asked} == {"answered"}, case.query
        assert result.synthesis is None or result.synthesis.fallback is None
        assert result.ended is None
        assert average_precision(order(result), case.relevant) > 0.9, case.query
        assert all(reason.agrees for reason in result.reasons)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_with_a_fifth_of_all_calls_failing_every_query_gets_a_ranking_better_than_the_prior(
    images: FolderCollection, faulty: Faulty, strategy: str
) -> None:
    agent = agent_of(strategy, images, faulty)
    before, after = [], []
    for case in draw_cases(QUERIES):
        failed, calls = faulty.failed, faulty.calls
        result = await agent.rerank(case.query, case.candidates)
        assert_strict(result, case.candidates)
        assert result.ended is None
        assert_visible(result, faulty.failed - failed, faulty.calls - calls)
        before.append(average_precision(prior_order(case.candidates), case.relevant))
        after.append(average_precision(order(result), case.relevant))
    assert SHARE - 0.05 < faulty.failed / faulty.calls < SHARE + 0.05
    assert sum(after) / QUERIES > sum(before) / QUERIES + 0.05


def assert_visible(result: RerankResult, failed: int, calls: int) -> None:
    """Every failure is one unknown in the result, in the trace, and in the warning, and nothing else is one."""
    unknown = [question for question in result.asked if question.state == "unknown"]
    assert len(result.asked) == calls
    assert len(unknown) == failed
    assert {question.error for question in unknown} <= {INJECTED}
    assert all(question.request_key for question in unknown)
    assert (f"{failed} of {calls} calls gave no answer" in result.flags) == (failed > 0)

    counted = sum(e.data["states"].get("unknown", 0) for e in result.trace if e.kind in ("verified", "compared"))
    assert counted == sum(asked.state == "unknown" for asked in (*result.verdicts, *result.comparisons))
    (ranked,) = (event.data for event in result.trace if event.kind == "ranked")
    reasons = sum(reason.state == "unknown" for reason in result.reasons)
    assert ranked["unknown"] + reasons == failed
    if result.synthesis is not None and result.synthesis.fallback is not None:
        assert INJECTED in result.synthesis.fallback
        assert any(event.kind == "synthesized" and event.data["fallback"] for event in result.trace)
    told = [event.data["requests"] for event in result.trace if "requests" in event.data]
    stages = {call.request_key for call in result.calls if call.state == "unknown"}
    assert stages <= set(itertools.chain.from_iterable(told))


@pytest.mark.parametrize("calls", [0, 1, 5, 20])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_whatever_the_budget_there_is_a_ranking_and_the_stage_that_it_ended(
    images: FolderCollection, faulty: Faulty, strategy: str, calls: int
) -> None:
    agent = agent_of(strategy, images, faulty)
    for case in draw_cases(3, candidates=24):
        made, failed = faulty.calls, faulty.failed
        result = await agent.rerank(case.query, case.candidates, budget=Budget(max_calls=calls))
        assert_strict(result, case.candidates)
        assert result.ended in {"caption", "synthesize", "decompose", "check", "verify", "compare", "explain"}
        assert len(result.asked) == faulty.calls - made == calls
        assert sum(question.state == "unknown" for question in result.asked) == faulty.failed - failed
        (ranked,) = (event.data for event in result.trace if event.kind == "ranked")
        assert ranked["ended"] == result.ended
        if calls == 0:
            assert order(result) == prior_order(case.candidates)

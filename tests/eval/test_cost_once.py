"""The cost of a run is that of the results that it ends with, however often a query was asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldscope.agent.lmm.base import LMMRequest
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import LMMConnectionError
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.finished import read_results
from fieldscope.eval.types import Benchmark
from tests.eval.test_harness import agents


def cost_of(results: dict[str, RerankResult]) -> tuple[int, int]:
    asked = [question for result in results.values() for question in result.asked]
    return len(asked), sum(question.prompt_tokens + question.completion_tokens for question in asked)


@pytest.mark.parametrize("better", [True, False])
async def test_a_query_that_is_asked_again_counts_once(bench: Benchmark, tmp_path: Path, better: bool) -> None:
    """At first one question of eight has no answer; the second time none of that query has, or every one."""
    failing = {"first": 1}

    def answer(request: LMMRequest) -> Answer:
        if failing["first"]:
            failing["first"] -= 1
            return LMMConnectionError("gone")
        return 0.7

    lmm = ScriptedLMM(answer)
    (first,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, query_concurrency=1)
    assert (first.unknown, first.cost.calls) == (1, 40)
    failing["first"] = 0 if better else 3
    (second,) = await evaluate(bench, agents(bench, lmm, "yes-no"), tmp_path, query_concurrency=1)
    calls, tokens = cost_of(read_results(second.out))
    assert (second.cost.calls, second.cost.prompt_tokens + second.cost.completion_tokens) == (calls, tokens)
    assert second.unknown == (0 if better else 1)
    assert second.cost.cached == 32

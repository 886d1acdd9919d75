"""The bundled models on FieldNotes' validation split, with a fifth of all calls failing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fieldscope.agent.graph import Agent
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.eval.harness import evaluate
from fieldscope.eval.runs.read import read_metric, read_results
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.encoder import Encoder
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.fieldnotes import rerank_benchmark
from fieldscope.service.wiring.models import bundled_lmm
from fieldscope.service.wiring.settings import Settings
from tests.agent.faulty import INJECTED, Faulty

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Encoder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FIELDSCOPE_CACHE", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return rerank_benchmark("validation", Settings())


def test_a_fifth_of_all_calls_fails_and_every_query_is_ranked_better_than_before(
    validation: tuple[Benchmark, Encoder], tmp_path: Path
) -> None:
    benchmark, encoder = validation
    faulty, strategy = Faulty(bundled_lmm(benchmark.images)), load_strategy("agent", prompts="fieldnotes")
    calibration = find_calibration(faulty.identity, strategy, encoder.fingerprint)
    assert calibration is not None, "the bundled models come with a calibration"
    agents = [
        Agent(Resources(images=benchmark.images), load_strategy("clip", prompts="fieldnotes")),
        Agent(Resources(images=benchmark.images, lmm=faulty, calibration=calibration), strategy),
    ]
    asyncio.run(evaluate(benchmark, agents, tmp_path, query_concurrency=4))
    results = read_results(tmp_path / "agent")
    assert results.keys() == {query.id for query in benchmark.queries}
    assert all(len(result.ranking) == len(benchmark.candidates(query_id) or ()) for query_id, result in results.items())
    prior, after = (read_metric(tmp_path / name, "AP@50") for name in ("clip", "agent"))
    assert sum(after.values()) > sum(prior.values())
    assert 0.15 < faulty.failed / faulty.calls < 0.25
    assert sum(map(unknown, results.values())) == faulty.failed
    assert all(any("gave no answer" in flag for flag in result.flags) for result in results.values() if unknown(result))


def unknown(result: RerankResult) -> int:
    """How many questions of the trace say that they failed, and why."""
    failed = [question for question in result.asked if question.state == "unknown"]
    assert all(INJECTED in (question.error or "") for question in failed)
    return len(failed)

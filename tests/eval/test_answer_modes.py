"""Without log-probabilities FieldNotes is ranked nearly as well, and fitted like with them.

`bundled_p_yes.json` holds, for queries of FieldNotes-Rerank's validation split, every candidate's prior, the bundled
LMM's P(yes) to `match_yes_no`, and whether it is relevant. `checks/answer_modes.py` measures the same with predicates,
and with the LMM itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.calibration import calibration_key
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.agent.lmm.scripted import Answer, ScriptedLMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Candidate, HashSource, Query
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.tuning.calibrate import calibrate, verification
from fieldscope.eval.types import Benchmark

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "bundled_p_yes.json").read_text())
P = {f"{query}-{n}": p for query, rows in RECORDED.items() for n, (_, p, _) in enumerate(rows)}
FUSED = {"fusion": {"method": "posterior", "prior_weight": 0.5}}
MODES = {"logprobs": {}, "samples": {"verify.samples": 8}, "stated": {"verify.prompt": "state_yes_no"}}
NEAR = 2.0  # points of mAP@50


class Named(HashSource):
    """Images that are nothing but their names."""

    def load(self, image_id: str) -> PILImage.Image:
        raise NotImplementedError

    def pixel_hash(self, image_id: str) -> str:
        return sha256(image_id.encode()).hexdigest()


def says(request: LMMRequest) -> Answer:
    """P(yes) itself where log-probabilities are asked for; else words that follow it."""
    p = P[request.images[0].image_id]
    if request.top_logprobs:
        return p
    if request.json_schema is not None:
        return f'{{"probability": {p:.2f}}}'
    chance = int.from_bytes(sha256(request.key("drawn").encode()).digest()[:7]) / (1 << 56)
    return LMMResponse(text="Yes" if chance < p else "No")


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return Benchmark(
        name="fieldnotes-rerank",
        split="validation",
        queries=tuple(Query(id=query, text=f"what query {query} asks for") for query in RECORDED),
        qrels={q: {f"{q}-{n}": r for n, (_, _, r) in enumerate(rows) if r} for q, rows in RECORDED.items()},
        images=Named(),
        candidate_sets={
            q: tuple(Candidate(f"{q}-{n}", prior) for n, (prior, _, _) in enumerate(rows))
            for q, rows in RECORDED.items()
        },
    )


async def reranked(benchmark: Benchmark, strategy: Strategy, resources: Resources) -> dict[str, RerankResult]:
    agent = Agent(resources, strategy)
    return {query.id: await agent.rerank(query, benchmark.candidates(query.id)) for query in benchmark.queries}


def points(benchmark: Benchmark, results: dict[str, RerankResult]) -> float:
    return 100 * (score(benchmark, results).means()["mAP@50"] or 0.0)


@pytest.mark.slow
async def test_words_rank_within_two_points_of_log_probabilities_and_are_fitted_alike(benchmark: Benchmark) -> None:
    half = len(benchmark.queries) // 2
    fitting, rest = (replace(benchmark, queries=part) for part in (benchmark.queries[:half], benchmark.queries[half:]))
    found: dict[str, tuple[float, float]] = {}
    for mode, settings in MODES.items():
        strategy = load_strategy("yes-no", {**FUSED, **settings})
        resources = Resources(benchmark.images, ScriptedLMM(says))
        before = points(benchmark, await reranked(benchmark, strategy, resources))
        key = calibration_key("scripted", strategy, None)
        fitted = calibrate(fitting, await reranked(fitting, verification(strategy), resources), key)
        assert key.reading == {"logprobs": "", "samples": "8 samples", "stated": "stated"}[mode]
        assert fitted.fits(key) and fitted.queries == half
        after = await reranked(rest, strategy, replace(resources, calibration=fitted))
        found[mode] = (before, points(rest, after))
        assert {verdict.mode for result in after.values() for verdict in result.verdicts} == {mode}
    for mode, values in found.items():
        assert values == pytest.approx(found["logprobs"], abs=NEAR), (mode, found)
    assert found["samples"] != found["logprobs"], "the draws lose nothing, so they can't be draws"

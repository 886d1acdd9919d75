"""What a scoring model spares the agent: calls, tokens and mAP@50 of `agent`, and of `cascade` after seeded scorers.

    python -m checks.cascade --split validation
    python -m checks.cascade --split test

A seeded scorer knows the benchmark's judgments and adds Gaussian noise, as much as its AUC says. For each one `cascade`
is fitted on the validation split as `fieldscope calibrate` does it, and ranks the chosen split; `agent` has its own
calibration. All of them ask the bundled LMM over one response cache, so that a question that several ask is answered
once; calls and tokens are counted all the same. Exits with 1 unless the scorer of AUC .95 spares 60 % of the agent's
calls at a loss of at most 0.5 points of mAP@50, and the scorer of AUC .5, which knows nothing, loses at most 0.5.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

from fieldscope.agent.calibration import Calibration, calibration_key
from fieldscope.agent.graph import Agent
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import ImageScore, RerankResult
from fieldscope.agent.usage import Usage
from fieldscope.core.types import Query
from fieldscope.eval.measures.pairwise_study import ask_groups, state_of
from fieldscope.eval.measures.scoring import score
from fieldscope.eval.tuning.calibrate import calibrate, draw_groups, heads, verification
from fieldscope.eval.types import Benchmark
from fieldscope.service.wiring.benchmarks import Workload, open_workload
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings

METRIC = "mAP@50"
MOST_POINTS = 0.5
MOST_CALLS = 0.4
SKILLED, USELESS = 0.95, 0.5
_AT_ONCE = 4  # queries


class SeededScorer:
    """A `CandidateScorer` whose scores tell a relevant image from another one with the probability `auc`: the judgment
    times d' = sqrt(2) Phi^-1(AUC), plus noise that the seed, query and image decide."""

    def __init__(self, benchmark: Benchmark, auc: float, seed: int = 0) -> None:
        self._benchmark = benchmark
        self._separation = 2**0.5 * NormalDist().inv_cdf(auc)
        self.fingerprint = f"seeded scorer, AUC {auc:g}, seed {seed}"

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        judged = self._benchmark.judgments(query.id)
        return [
            ImageScore(image_id=image_id, state="answered", value=self._value(query, image_id, judged))
            for image_id in image_ids
        ]

    def _value(self, query: Query, image_id: str, judged: Mapping[str, int]) -> float:
        noise = random.Random(f"{self.fingerprint} {query.text} {image_id}").gauss()
        return self._separation * judged.get(image_id, 0) + noise


@dataclass(frozen=True)
class Outcome:
    """A strategy's run: what its LMM calls cost, how many pairs were scored, and its mAP@50 in points."""

    name: str
    usage: Usage
    pairs: int
    points: float


async def rerank(benchmark: Benchmark, strategy: Strategy, resources: Resources) -> dict[str, RerankResult]:
    """The result of every query."""
    agent, at_once = Agent(resources, strategy), asyncio.Semaphore(_AT_ONCE)

    async def one(query: Query) -> RerankResult:
        async with at_once:
            return await agent.rerank(query, benchmark.candidates(query.id))

    results = await asyncio.gather(*map(one, benchmark.queries))
    return {result.query_id: result for result in results}


async def with_scores(
    benchmark: Benchmark, results: Mapping[str, RerankResult], scorer: SeededScorer
) -> dict[str, RerankResult]:
    """The results of a verification, which asks every question whatever the scorer says, with the scorer's scores."""
    scored = {}
    for query in benchmark.queries:
        result = results[query.id]
        scores = await scorer.scores(query, [ranked.image_id for ranked in result.ranking])
        scored[query.id] = result.model_copy(update={"scores": tuple(scores)})
    return scored


async def fit(
    workload: Workload, verified: Mapping[str, RerankResult], strategy: Strategy, lmm: LMM, scorer: SeededScorer
) -> Calibration:
    """What `fieldscope calibrate` fits on the workload's split, of which every question was `verified`."""
    benchmark = workload.benchmark
    resources = Resources(benchmark.images, lmm, scorer=scorer)
    results = await with_scores(benchmark, verified, scorer)
    best = heads(benchmark, results, weighs_scores=True)
    for query in benchmark.queries:
        groups = draw_groups(best[query.id], 2, query.id)
        compared = await ask_groups(state_of(query, results[query.id]), groups, resources, strategy)
        results[query.id] = results[query.id].model_copy(update={"comparisons": compared})
    key = calibration_key(lmm.identity, strategy, workload.encoder, scorer.fingerprint)
    return calibrate(benchmark, results, key)


def outcome(name: str, benchmark: Benchmark, results: Mapping[str, RerankResult]) -> Outcome:
    """What a run came to."""
    return Outcome(
        name=name,
        usage=Usage.of(asked for result in results.values() for asked in result.asked),
        pairs=sum(len(result.scores) for result in results.values()),
        points=100.0 * (score(benchmark, results).means()[METRIC] or 0.0),
    )


async def measure(
    split: str, limit: int | None, aucs: Sequence[float], seed: int, settings: Settings, strategy: Strategy
) -> list[Outcome]:
    """`agent`, and the strategy after each scorer; prints each as it comes."""
    agent = load_strategy("agent", prompts="fieldnotes")
    selection = open_workload("fieldnotes-rerank", "validation", settings)
    workload = open_workload("fieldnotes-rerank", split, settings)
    benchmark = replace(workload.benchmark, queries=workload.benchmark.queries[:limit])
    outcomes: list[Outcome] = []

    def tell(run: Outcome) -> None:
        outcomes.append(run)
        first, usage = outcomes[0], run.usage
        print(
            f"{run.name:<18} {usage.calls:>8,} {usage.calls / first.usage.calls:>7.1%} {usage.prompt_tokens:>11,} "
            f"{usage.completion_tokens:>10,} {run.pairs:>8,} {run.points:>8.2f} {run.points - first.points:>+7.2f}",
            flush=True,
        )

    print(f"fieldnotes-rerank, {split}, {len(benchmark.queries)} queries")
    print(f"{'strategy':<18} {'calls':>8} {'share':>7} {'tokens in':>11} {'tokens out':>10} {'pairs':>8} {METRIC:>8}")
    async with open_lmm(settings, benchmark.images) as lmm:
        resources = Resources(benchmark.images, lmm)
        fitted = find_calibration(lmm.identity, agent, workload.encoder)
        tell(outcome("agent", benchmark, await rerank(benchmark, agent, replace(resources, calibration=fitted))))
    fits: dict[float, Calibration] = {}
    async with open_lmm(settings, selection.benchmark.images) as lmm:
        resources = Resources(selection.benchmark.images, lmm, scorer=SeededScorer(selection.benchmark, USELESS))
        verified = await rerank(selection.benchmark, verification(strategy), resources)
        for auc in aucs:
            fits[auc] = await fit(selection, verified, strategy, lmm, SeededScorer(selection.benchmark, auc, seed))
    async with open_lmm(settings, benchmark.images) as lmm:
        for auc in aucs:
            scorer = SeededScorer(benchmark, auc, seed)
            resources = Resources(benchmark.images, lmm, calibration=fits[auc], scorer=scorer)
            tell(outcome(f"{strategy.name}, AUC {auc:g}", benchmark, await rerank(benchmark, strategy, resources)))
    return outcomes


def reached(outcomes: Mapping[float | None, Outcome]) -> list[str]:
    """What is not as it must be, of the scorers by their AUC; None is the agent."""
    agent, faults = outcomes[None], []
    for auc, most_calls in ((SKILLED, MOST_CALLS), (USELESS, None)):
        if (run := outcomes.get(auc)) is None:
            continue
        if agent.points - run.points > MOST_POINTS:
            faults.append(f"AUC {auc:g} loses {agent.points - run.points:.2f} points (at most {MOST_POINTS})")
        if most_calls is not None and run.usage.calls > most_calls * agent.usage.calls:
            faults.append(f"AUC {auc:g} takes {run.usage.calls / agent.usage.calls:.1%} of the calls (at most 40 %)")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, help="how many of its queries; all by default")
    parser.add_argument("--auc", type=float, nargs="+", default=[SKILLED, 0.85, USELESS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="cascade", help="its name or file")
    parser.add_argument("--cache-file", type=Path, help="the response cache; the user's own by default")
    chosen = parser.parse_args()
    strategy = load_strategy(chosen.strategy, prompts="fieldnotes")
    settings = Settings(cache_file=chosen.cache_file)
    runs = asyncio.run(measure(chosen.split, chosen.limit, chosen.auc, chosen.seed, settings, strategy))
    faults = reached(dict(zip([None, *chosen.auc], runs, strict=True)))
    print("; ".join(faults) or "reached")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

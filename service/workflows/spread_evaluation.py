"""The queries of an evaluation, ranked by a cluster's workers, who share one list of LMM servers and one cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image as PILImage

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import open_workload
from fieldscope.service.wiring.cluster import Cluster, Hosted, connected
from fieldscope.service.wiring.cluster_store import on_workers
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluation_agents import agents_of, open_lmms_of, open_scorer_of
from fieldscope.service.workflows.evaluation_plan import RUNS, Contest, EvaluationPlan, OpenEvaluation

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import Candidate, ImageSource, Query


class Share(NamedTuple):
    """What a worker needs to rank queries; `calibrations` by strategy."""

    plan: EvaluationPlan
    contest: Contest
    calibrations: Mapping[str, Calibration]


class Ranked(NamedTuple):
    """A query's result, and the pixel hashes of the images that the model was asked about."""

    result: RerankResult
    hashes: Mapping[str, str]


class EvaluationWorker:
    """Ranks queries with models of its own; opens all with the first query. Serves one event loop."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._opening = asyncio.Lock()
        self._open_for_good = AsyncExitStack()
        self._opened: OpenEvaluation | None = None
        self._agents: Mapping[str, Agent] = {}

    async def rank(
        self, strategy: str, query: Query, candidates: Sequence[Candidate] | None, budget: Budget | None
    ) -> Ranked:
        """As `Agent.rerank` does under the strategy of this name."""
        from fieldscope.eval.harness import hashes_of

        async with self._opening:
            opened = self._opened or await self._open()
        result = await self._agents[strategy].rerank(query, candidates, budget=budget)
        return Ranked(result, await asyncio.to_thread(hashes_of, result, query, opened.images))

    async def _open(self) -> OpenEvaluation:
        plan, contest, calibrations = self._share
        opening = asyncio.to_thread(open_workload, plan.benchmark, plan.split, contest.settings, choices=plan.choices)
        opened = OpenEvaluation(plan, await opening, (contest,), plan.out or RUNS)
        scorer = await open_scorer_of(opened, contest, self._open_for_good)
        lmms = await open_lmms_of(opened, contest, self._open_for_good) if contest.asks else None
        agents = agents_of(opened, contest.strategies, contest, lmms, scorer, calibrations)
        self._agents = {agent.strategy.name: agent for agent in agents}
        self._opened = opened
        return opened


@dataclass(frozen=True)
class Crew:
    """Workers, how many queries each is ranking, and the pixel hashes that they have told."""

    hosts: Sequence[Hosted]
    busy: list[int]
    hashes: dict[str, str] = field(default_factory=dict)

    def rerankers(self, strategies: Sequence[Strategy]) -> list[SpreadReranker]:
        """A reranker for each strategy."""
        return [SpreadReranker(strategy, self) for strategy in strategies]

    async def rank(
        self, strategy: str, query: Query, candidates: Sequence[Candidate] | None, budget: Budget | None
    ) -> RerankResult:
        """Let the worker rank that has the fewest queries."""
        least = min(range(len(self.hosts)), key=self.busy.__getitem__)
        self.busy[least] += 1
        try:
            ranked: Ranked = await self.hosts[least].call("rank", strategy, query, candidates, budget)
        finally:
            self.busy[least] -= 1
        self.hashes.update(ranked.hashes)
        return ranked.result


@dataclass(frozen=True)
class SpreadReranker:
    """A `Reranker` whose queries a crew ranks."""

    strategy: Strategy
    crew: Crew
    account: None = None

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, *, budget: Budget | None = None
    ) -> RerankResult:
        """Rank the given candidates, or where none are given those that are found, within a budget."""
        return await self.crew.rank(self.strategy.name, query, candidates, budget)


@dataclass(frozen=True)
class HashedByCrew:
    """An `ImageSource` that takes the hashes of images from the workers who read them."""

    images: ImageSource
    hashes: Mapping[str, str]

    def load(self, image_id: str) -> PILImage.Image:
        """The picture. Raises `ImageError`."""
        return self.images.load(image_id)

    def pixel_hash(self, image_id: str) -> str:
        """SHA-256 of the decoded pixels. Raises `ImageError`."""
        return self.hashes.get(image_id) or self.images.pixel_hash(image_id)


@dataclass(frozen=True)
class Spreading:
    """A cluster, and a contest's settings for its workers."""

    cluster: Cluster
    settings: Settings

    def crew(self, share: Share) -> Crew:
        """A worker for as many as the cluster has room for."""
        own = share._replace(contest=replace(share.contest, settings=self.settings))
        hosts = [self.cluster.host(EvaluationWorker, own) for _ in range(self.cluster.workers)]
        return Crew(hosts, [0] * len(hosts))


@contextmanager
def spreading(plan: EvaluationPlan, settings: Settings) -> Iterator[Spreading | None]:
    """What ranks the queries of a contest with these settings; None where this process does. Raises `ConfigError` for a
    cluster that is not there, and for a budget of the whole run, which no two workers can share."""
    if plan.ray is None:
        yield None
        return
    if plan.run_budget is not None and plan.run_budget != type(plan.run_budget)():
        raise ConfigError("a Ray cluster's workers can't share a run's budget; give each query one, or leave --ray out")
    with connected(plan.ray) as cluster, on_workers(cluster, settings) as own:
        yield Spreading(cluster, own)

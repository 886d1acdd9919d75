"""Comparisons outside of a run: any groups one likes, and what the scheduler would have made of recorded answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from fieldscope.agent.context import Context
from fieldscope.agent.nodes.compare import compare
from fieldscope.agent.nodes.pair import pair
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.query_text import comparison_text
from fieldscope.agent.resources import Resources
from fieldscope.agent.scheduling import DEPTH, compared_head
from fieldscope.agent.state import CompareTask, RerankState
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Comparison, RankedCandidate, RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.eval.measures.metrics import ndcg
from fieldscope.eval.measures.studies import ComparisonStudy, comparison_study
from fieldscope.eval.types import Benchmark


def state_of(query: Query, result: RerankResult) -> RerankState:
    """Where a finished query stood before its comparisons."""
    by_prior = sorted(result.ranking, key=lambda candidate: candidate.prior_rank)
    return RerankState(
        query=query,
        candidates=tuple(ranked.candidate for ranked in by_prior),
        synthesis=result.synthesis,
        predicates=result.predicates,
        verdicts=result.verdicts,
        scores=result.scores,
        started=time.monotonic(),
    )


async def ask_groups(
    state: RerankState, groups: Sequence[tuple[str, ...]], resources: Resources, strategy: Strategy
) -> tuple[Comparison, ...]:
    """Each group of images shown in its order and backwards, two comparisons for each group."""
    context = Context(resources, strategy, resources.lmm)
    tasks = [
        CompareTask(
            query=state.query,
            description=comparison_text(state.query, state.synthesis),
            orders=(group, group[::-1]),
            wave=1,
            started=state.started,
        )
        for group in groups
    ]
    done = await asyncio.gather(*(compare(task, context) for task in tasks))
    return tuple(comparison for update in done for comparison in update["comparisons"])


@dataclass(frozen=True)
class HeadStudy:
    """One query's ranking before any comparison, after all pairs of the head in both orders, and after those pairs that
    the scheduler chose; with the comparisons that the two took."""

    before: tuple[RankedCandidate, ...]
    all_pairs: tuple[RankedCandidate, ...]
    scheduled: tuple[RankedCandidate, ...]
    calls_all: int
    calls_scheduled: int


async def study_head(state: RerankState, resources: Resources, strategy: Strategy) -> HeadStudy:
    """Ask all pairs of the head; then let the scheduler choose among the answers, within the strategy's `max_calls`."""
    belief, head, _ = compared_head(state, resources, strategy)
    ids = [belief.candidates[index].image_id for index in head]
    everything = await ask_groups(state, list(combinations(ids, 2)), resources, strategy)
    chosen = scheduled(state, {comparison.shown: comparison for comparison in everything}, resources, strategy)
    return HeadStudy(
        before=_ranking(state, resources, strategy),
        all_pairs=_ranking(state.model_copy(update={"comparisons": everything}), resources, strategy),
        scheduled=_ranking(state.model_copy(update={"comparisons": chosen}), resources, strategy),
        calls_all=len(everything),
        calls_scheduled=len(chosen),
    )


def scheduled(
    state: RerankState, answers: Mapping[tuple[str, ...], Comparison], resources: Resources, strategy: Strategy
) -> tuple[Comparison, ...]:
    """The comparisons that the agent would have asked for from here, given the answer to every order of showing."""
    context = Context(resources, strategy, resources.lmm)
    while True:
        tasks = [task for task in pair(state, context).tasks if isinstance(task, CompareTask)]
        if not tasks:
            return state.comparisons
        asked = tuple(answers[order] for task in tasks for order in task.orders)
        state = state.model_copy(update={"comparisons": (*state.comparisons, *asked), "wave": state.wave + 1})


def summed_up(start: str, studies: Mapping[str, HeadStudy], benchmark: Benchmark) -> ComparisonStudy:
    """nDCG@10 of all queries that have something to find. Raises `ConfigError` where none has."""
    before: dict[str, float] = {}
    all_pairs: dict[str, float] = {}
    chosen: dict[str, float] = {}
    for query_id, study in studies.items():
        judgments = benchmark.judgments(query_id)
        if any(judgments.values()):
            before[query_id] = _ndcg(study.before, judgments)
            all_pairs[query_id] = _ndcg(study.all_pairs, judgments)
            chosen[query_id] = _ndcg(study.scheduled, judgments)
    if not before:
        raise ConfigError("none of the queries has a relevant image. Use more queries (--queries).")
    return comparison_study(
        start,
        before,
        all_pairs,
        chosen,
        calls_all=fmean(studies[query_id].calls_all for query_id in before),
        calls_scheduled=fmean(studies[query_id].calls_scheduled for query_id in before),
    )


def _ndcg(ranking: Sequence[RankedCandidate], judgments: Mapping[str, int]) -> float:
    relevance = [judgments.get(candidate.image_id, 0) for candidate in ranking]
    return float(ndcg(relevance, sum(judgments.values()), DEPTH))


def _ranking(state: RerankState, resources: Resources, strategy: Strategy) -> tuple[RankedCandidate, ...]:
    context = Context(resources, strategy, resources.lmm)
    result: RerankResult = rank(state, context)["result"]
    return result.ranking

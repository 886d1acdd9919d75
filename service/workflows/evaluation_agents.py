"""The agents of an evaluation, with the models that they ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.regions import tile_regions
from fieldscope.service.wiring.roles import open_lmms
from fieldscope.service.wiring.scorers import open_candidate_scorer, uses_scorer
from fieldscope.service.workflows.evaluation_checks import composed
from fieldscope.service.workflows.evaluation_plan import Contest, OpenEvaluation
from fieldscope.service.workflows.picture_context import checked_first, require_pictures_fit

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.resources import CandidateScorer
    from fieldscope.agent.roles import LMMs
    from fieldscope.agent.strategies.strategy import Strategy


def agents_of(
    opened: OpenEvaluation,
    strategies: Sequence[Strategy],
    contest: Contest,
    lmms: LMMs | None,
    scorer: CandidateScorer | None,
    calibrations: Mapping[str, Calibration],
) -> list[Agent]:
    """An agent for each of these strategies of a contest, with its own account; `calibrations` by their names."""
    from fieldscope.agent.budget import Account
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.resources import Resources

    plan, workload = opened.plan, opened.workload
    flags = contest.flags if lmms else ()
    settings, recorded = contest.settings, workload.recording
    resources = Resources(opened.images, lmms, workload.retriever, settings.concurrency, flags=flags, scorer=scorer)
    regions = recorded.regions if recorded else tile_regions(workload.benchmark.images, settings)
    resources = replace(resources, seed=plan.seed, regions=regions)
    budget = plan.run_budget if lmms is not None or scorer is not None else None
    return [
        Agent(replace(resources, calibration=calibrations.get(strategy.name)), strategy, Account(budget))
        for strategy in strategies
    ]


async def open_lmms_of(opened: OpenEvaluation, contest: Contest, stack: AsyncExitStack) -> LMMs:
    """The LMM of each role that a contest's strategies ask, over the response cache; a recording's answer instead."""
    workload = opened.workload
    if workload.recording is None:
        roles = contest.roles(composed(workload.benchmark.queries))
        prompts = [prompt for strategy in contest.strategies for prompt in strategy.prompts]
        images = with_examples(opened.images, prompts)
        queries = workload.benchmark.queries[: opened.plan.limit]
        shown = _first_images(workload)
        fitting = partial(
            require_pictures_fit, contest.settings, contest.strategies, queries, contest.contexts, images, shown
        )
        opening = open_lmms(contest.settings, images, roles, wrappers=[checked_first(fitting)])
        return await stack.enter_async_context(opening)
    if workload.recording.lmm is None:
        raise ConfigError("the recorded runs asked no model; name a strategy that asks none, such as clip")
    return workload.recording.lmm


async def open_scorer_of(opened: OpenEvaluation, contest: Contest, stack: AsyncExitStack) -> CandidateScorer | None:
    """The scoring model of strategies that use one."""
    if (recording := opened.workload.recording) is None:
        settings = contest.settings
        if opened.plan.seed and settings.cache_mode != "replay":
            settings = replace(settings, cache_mode="off")
        opening = open_candidate_scorer(settings, opened.workload.benchmark.images, contest.strategies)
        return await stack.enter_async_context(opening)
    if any(map(uses_scorer, contest.strategies)) and recording.scorer is None:
        raise ConfigError("the recorded runs used no scoring model; name a strategy that uses none, such as agent")
    return recording.scorer


def _first_images(workload: Workload) -> Sequence[str]:
    """The ids of images that will be asked about, where they are known before the run."""
    benchmark = workload.benchmark
    return workload.found if benchmark.candidate_sets is None else benchmark.candidate_ids(benchmark.queries[0].id)

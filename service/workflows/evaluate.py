"""A benchmark under strategies: opened and checked first, then run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.benchmarks import Workload, measured, open_workload, selected
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import run_progress, warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.priors import with_prior_encoder, with_priors
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.prompts import check_wordings
from fieldscope.service.wiring.regions import tile_regions
from fieldscope.service.wiring.roles import open_lmms, probe_servers, require_servers
from fieldscope.service.wiring.scorers import open_candidate_scorer, require_scorer, uses_scorer
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.collecting import seldom_collecting
from fieldscope.service.workflows.evaluation_checks import (
    captions_of,
    composed,
    flags_of,
    heed_captions,
    heed_instructions,
    one_instruction,
)
from fieldscope.service.workflows.picture_context import checked_first, require_pictures_fit

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.resources import CandidateScorer
    from fieldscope.agent.roles import LMMs, ModelIdentity, Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.eval.progress import Progress
    from fieldscope.eval.queries import Selection
    from fieldscope.eval.types import RunSummary
    from fieldscope.prompts.prompt_set import PromptSet

RUNS = Path("runs")
"""The folder for runs of which the user does not say where they go."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate on: a benchmark by name or path, its split (None: test), and which of its queries.

    `out` is the folder for the runs, a folder per strategy, by default `runs/BENCHMARK-SPLIT`. Each query may spend
    `budget`, and all queries of a strategy together `run_budget`. `choices` are settings of the benchmark's protocol,
    `metrics` the names of what is computed beside its own. Every request is made under the `seed`; scores of a scoring
    model, which takes none, are asked for again and not remembered under a seed other than 0.
    """

    benchmark: str
    split: str | None = None
    selection: Selection | None = None
    limit: int | None = None
    out: Path | None = None
    budget: Budget | None = None
    run_budget: Budget | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    seed: int = 0

    @property
    def suffix(self) -> str:
        """What distinguishes the folder of these runs from that of all queries under the usual protocol."""
        chosen = "".join(f"-{name}-{value}" for name, value in self.choices.items())
        return (self.selection.suffix if self.selection else "") + chosen


@dataclass(frozen=True)
class Contest:
    """Strategies, and the models that they ask. `flags` are the warnings that their runs carry, `contexts` the models'
    context lengths in tokens, by role, where they are known."""

    settings: Settings
    strategies: Sequence[Strategy]
    flags: tuple[str, ...] = ()
    contexts: Mapping[Role, int] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether any of the strategies asks the LMM."""
        return any(strategy.prompts for strategy in self.strategies)

    def roles(self, composed: bool = True) -> tuple[Role, ...]:
        """The roles that the strategies ask: for queries with a reference image, where `composed`, else for others."""
        return tuple(dict.fromkeys(role for strategy in self.strategies for role in strategy.roles(composed)))


@dataclass(frozen=True)
class OpenEvaluation:
    """An evaluation that is checked and can begin: the opened benchmark, the strategies by model, and the plan with
    its folder filled in."""

    plan: EvaluationPlan
    workload: Workload
    contests: tuple[Contest, ...]
    out: Path

    @cached_property
    def images(self) -> ImageSource:
        """The benchmark's images, with every closer look at them; a recording's are those that it has hashes of."""
        from fieldscope.retrieval.looked_at import with_looks

        images = self.workload.benchmark.images
        return images if self.workload.recording is not None else with_looks(images)

    @property
    def flags(self) -> tuple[str, ...]:
        """The warnings that any of the runs carries."""
        return tuple(dict.fromkeys(flag for contest in self.contests for flag in contest.flags))


@dataclass(frozen=True)
class EvaluatedRuns:
    """The runs, the warnings that they carry, and the folder that they are in."""

    runs: list[RunSummary]
    flags: tuple[str, ...]
    out: Path


def evaluate_benchmark(plan: EvaluationPlan, strategies: Sequence[Strategy], settings: Settings) -> EvaluatedRuns:
    """Run a benchmark under strategies that ask one model. Raises what `open_evaluation` and
    `run_opened` raise."""
    return run_opened(open_evaluation(plan, [Contest(settings, strategies)]))


def open_evaluation(plan: EvaluationPlan, contests: Sequence[Contest]) -> OpenEvaluation:
    """Ask the servers whether they are there, open the benchmark, and check that it can be run.

    Raises `LMMError` for a server that is not there, `BenchmarkError` for a benchmark that is not, and what
    `check_evaluation` raises.
    """
    _require_scorers(contests)
    contexts = [require_servers(contest.settings, contest.roles()) for contest in contests]
    return _opened(plan, contests, contexts)


async def open_evaluation_async(plan: EvaluationPlan, contests: Sequence[Contest]) -> OpenEvaluation:
    """`open_evaluation` for callers with an event loop of their own."""
    _require_scorers(contests)
    contexts = [await probe_servers(contest.settings, contest.roles()) for contest in contests]
    return await asyncio.to_thread(_opened, plan, contests, contexts)


def _require_scorers(contests: Sequence[Contest]) -> None:
    for contest in contests:
        require_scorer(contest.strategies, contest.settings.scorer is not None)


def _opened(
    plan: EvaluationPlan, contests: Sequence[Contest], contexts: Sequence[Mapping[Role, int]]
) -> OpenEvaluation:
    settings = contests[0].settings
    workload = open_workload(plan.benchmark, plan.split, settings, choices=plan.choices)
    workload = with_prior_encoder(workload, settings)
    opened = check_evaluation(plan, workload, contests, contexts)
    if workload.prior_encoder is None:
        return opened
    instruction = one_instruction(workload, [strategy for contest in contests for strategy in contest.strategies])
    return replace(opened, workload=with_priors(opened.workload, settings.encoder, plan.limit, instruction))


def check_evaluation(
    plan: EvaluationPlan,
    workload: Workload,
    contests: Sequence[Contest],
    contexts: Sequence[Mapping[Role, int]],
) -> OpenEvaluation:
    """The evaluation, with a warning for each flag that its runs will carry. `contexts` are the context
    lengths in tokens of each contest's models, by role, where they are known.

    Raises `ConfigError` for a selection without queries, `ContextLengthError` for queries that do not fit a context,
    and what `flags_of` raises.
    """
    from fieldscope.eval.tuning.estimate import require_context

    if plan.selection is not None:
        workload = selected(workload, plan.selection)
    if plan.metrics:
        workload = measured(workload, plan.metrics)
    benchmark = workload.benchmark
    queries = benchmark.queries[: plan.limit]
    for contest, context in zip(contests, contexts, strict=True):
        require_context(contest.strategies, queries, context)
    checked = tuple(
        replace(contest, flags=flags_of(workload, queries, contest.settings, contest.strategies), contexts=context)
        for contest, context in zip(contests, contexts, strict=True)
    )
    out = plan.out or RUNS / f"{benchmark.name}-{benchmark.split}{plan.suffix}"
    opened = OpenEvaluation(plan, workload, checked, out)
    for flag in opened.flags:
        warn(flag)
    strategies = [strategy for contest in contests for strategy in contest.strategies]
    heed_instructions(workload, strategies)
    heed_captions(workload, strategies, plan.benchmark)
    return opened


def _first_images(workload: Workload) -> Sequence[str]:
    """The ids of images that will be asked about, where they are known before the run."""
    benchmark = workload.benchmark
    return workload.found if benchmark.candidate_sets is None else benchmark.candidate_ids(benchmark.queries[0].id)


def run_opened(opened: OpenEvaluation) -> EvaluatedRuns:
    """Run every strategy into its folder, the finished queries of an earlier run kept. Ctrl-C ends it, and says what
    is kept. Raises what `fieldscope.eval.harness.evaluate` raises."""
    replays = opened.workload.recording is not None or opened.contests[0].settings.cache_mode == "replay"
    kept = f"finished queries are kept in {opened.out}; rerun this command to continue"
    with seldom_collecting() if replays else nullcontext():
        return interruptible(run_opened_async(opened), kept)


async def run_opened_async(opened: OpenEvaluation) -> EvaluatedRuns:
    """`run_opened` for callers with an event loop of their own."""
    with run_progress() as progress:
        runs = [summary for contest in opened.contests for summary in await _run_contest(opened, contest, progress)]
    return EvaluatedRuns(runs, opened.flags, opened.out)


def require_answers(evaluation: EvaluatedRuns, max_unknown: float) -> None:
    """Raise `LMMError` where more than the share `max_unknown` of a run's calls failed."""
    from fieldscope.eval.report import unanswered

    failed = [summary for summary in evaluation.runs if summary.unknown_share > max_unknown]
    if failed:
        raise LMMError(
            f"{'; '.join(map(unanswered, failed))}, more than --max-unknown allows ({max_unknown:.1%}). All results "
            f"are in {evaluation.out}. Restart the model or its server and rerun this command: only failed calls are "
            "repeated"
        )


def load_strategies(names: Sequence[str], prompts: PromptSet) -> list[Strategy]:
    """Strategies by name or file, worded by a prompt set. Raises `ConfigError` where one is unknown, invalid, or two
    have the same name."""
    from fieldscope.agent.strategies.strategy import load_strategy

    strategies = [load_strategy(name, prompts=prompts) for name in dict.fromkeys(names)]
    check_wordings(strategies, prompts)
    for name, count in Counter(strategy.name for strategy in strategies).items():
        if count > 1:
            raise ConfigError(
                f"{count} strategies have the name {name!r}, which names the run's folder; give each its own name"
            )
    return strategies


async def _run_contest(opened: OpenEvaluation, contest: Contest, progress: Progress | None) -> list[RunSummary]:
    """The runs of strategies that ask one model, in their order."""
    asking = [strategy for strategy in contest.strategies if strategy.prompts]
    scoring = [strategy for strategy in contest.strategies if not strategy.prompts and uses_scorer(strategy)]
    silent = [strategy for strategy in contest.strategies if not (strategy.prompts or uses_scorer(strategy))]
    async with AsyncExitStack() as stack:
        scorer = await _open_scorer(opened, contest, stack)
        # Apart, so that the manifest of a run without a model names none, whatever runs beside it.
        runs = await _evaluate(opened, silent, contest, None, None, progress)
        runs += await _evaluate(opened, scoring, contest, None, scorer, progress)
        if asking:
            lmms = await _open_lmms(opened, contest, stack)
            runs += await _evaluate(opened, asking, contest, lmms, scorer, progress)
    by_name = {summary.strategy: summary for summary in runs}
    return [by_name[strategy.name] for strategy in contest.strategies]


async def _evaluate(
    opened: OpenEvaluation,
    strategies: Sequence[Strategy],
    contest: Contest,
    lmms: LMMs | None,
    scorer: CandidateScorer | None,
    progress: Progress | None,
) -> list[RunSummary]:
    """The runs of strategies that all ask LMMs or, where there are none, all ask none. Where there is a scorer, it is
    asked by those that have the stage."""
    from fieldscope.agent.budget import Account
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.harness import evaluate
    from fieldscope.eval.runs.inputs import begun_earlier, input_lines, keeping_priors

    plan, workload = opened.plan, opened.workload
    images, flags = opened.images, contest.flags if lmms else ()
    pictured = composed(workload.benchmark.queries)
    models = {s.name: lmms.identity(s.roles(pictured)) if lmms else None for s in strategies}
    captions = {s.name: made for s in strategies if (made := captions_of(workload, s)) is not None}
    scorers = {s.name: scorer.fingerprint for s in strategies if scorer is not None and uses_scorer(s)}
    resources = Resources(images, lmms, workload.retriever, contest.settings.concurrency, flags=flags, scorer=scorer)
    recorded = workload.recording
    regions = recorded.regions if recorded else tile_regions(workload.benchmark.images, contest.settings)
    resources = replace(resources, seed=plan.seed, regions=regions)
    calibrations = {
        strategy.name: _calibration(workload, strategy, models[strategy.name], scorers.get(strategy.name))
        or begun_earlier(opened.out / strategy.name)
        for strategy in strategies
    }
    asks = lmms is not None or scorer is not None
    fitted = {name: calibration for name, calibration in calibrations.items() if calibration is not None}
    agents = [
        Agent(
            replace(resources, calibration=fitted.get(strategy.name)),
            strategy,
            Account(plan.run_budget if asks else None),
        )
        for strategy in strategies
    ]
    return await evaluate(
        workload.benchmark,
        agents,
        opened.out,
        provenance={"encoder": workload.encoder, "seed": plan.seed},
        lmms=models,
        limit=plan.limit,
        budget=plan.budget if asks else None,
        scorers=scorers,
        captions=captions,
        calibrations={name: fingerprint(fit.model_dump(mode="json")) for name, fit in fitted.items() if fit.key},
        progress=progress,
        inputs={
            s.name: input_lines(keeping_priors(workload.benchmark, opened.out / s.name), s, fitted.get(s.name))
            for s in strategies
        },
        live=workload.recording is None,
        images=images,
    )


async def _open_lmms(opened: OpenEvaluation, contest: Contest, stack: AsyncExitStack) -> LMMs:
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


async def _open_scorer(opened: OpenEvaluation, contest: Contest, stack: AsyncExitStack) -> CandidateScorer | None:
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


def _calibration(
    workload: Workload, strategy: Strategy, model: ModelIdentity | None, scorer: str | None
) -> Calibration | None:
    def find() -> Calibration | None:
        return find_calibration(model, strategy, workload.encoder, scorer)

    return workload.recording.calibration_of(strategy, find) if workload.recording else find()

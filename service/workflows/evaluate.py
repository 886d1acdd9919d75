"""A benchmark under strategies: opened and checked first, then run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.service.wiring.benchmarks import Workload, measured, open_workload, selected
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import run_progress, warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.priors import with_prior_encoder, with_priors
from fieldscope.service.wiring.prompts import check_wordings
from fieldscope.service.wiring.roles import probe_servers, require_servers
from fieldscope.service.wiring.scorers import require_scorer, uses_scorer
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.collecting import seldom_collecting
from fieldscope.service.workflows.evaluation_agents import agents_of, open_lmms_of, open_scorer_of
from fieldscope.service.workflows.evaluation_checks import (
    captions_of,
    composed,
    flags_of,
    heed_captions,
    heed_instructions,
    one_instruction,
)
from fieldscope.service.workflows.evaluation_plan import RUNS, Contest, EvaluationPlan, OpenEvaluation
from fieldscope.service.workflows.spread_evaluation import HashedByCrew, Share, Spreading, spreading

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.resources import CandidateScorer
    from fieldscope.agent.roles import LMMs, ModelIdentity, Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.eval.harness import Reranker
    from fieldscope.eval.progress import Progress
    from fieldscope.eval.types import RunSummary
    from fieldscope.prompts.prompt_set import PromptSet

__all__ = [
    "RUNS",
    "Contest",
    "EvaluatedRuns",
    "EvaluationPlan",
    "OpenEvaluation",
    "check_evaluation",
    "evaluate_benchmark",
    "load_strategies",
    "open_evaluation",
    "open_evaluation_async",
    "require_answers",
    "run_opened",
    "run_opened_async",
]


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
        scorer = await open_scorer_of(opened, contest, stack)
        workers = stack.enter_context(spreading(opened.plan, contest.settings)) if asking or scoring else None
        # Apart, so that the manifest of a run without a model names none, whatever runs beside it.
        runs = await _evaluate(opened, silent, contest, None, None, None, progress)
        runs += await _evaluate(opened, scoring, contest, None, scorer, workers, progress)
        if asking:
            lmms = await open_lmms_of(opened, contest, stack)
            runs += await _evaluate(opened, asking, contest, lmms, scorer, workers, progress)
    by_name = {summary.strategy: summary for summary in runs}
    return [by_name[strategy.name] for strategy in contest.strategies]


async def _evaluate(
    opened: OpenEvaluation,
    strategies: Sequence[Strategy],
    contest: Contest,
    lmms: LMMs | None,
    scorer: CandidateScorer | None,
    workers: Spreading | None,
    progress: Progress | None,
) -> list[RunSummary]:
    """The runs of strategies that all ask LMMs or, where there are none, all ask none. Where there is a scorer, it is
    asked by those that have the stage. `workers` rank in place of this process."""
    from fieldscope.eval.harness import QUERIES_AT_ONCE, evaluate
    from fieldscope.eval.runs.inputs import begun_earlier, input_lines, keeping_priors

    plan, workload = opened.plan, opened.workload
    images: ImageSource = opened.images
    pictured = composed(workload.benchmark.queries)
    models = {s.name: lmms.identity(s.roles(pictured)) if lmms else None for s in strategies}
    captions = {s.name: made for s in strategies if (made := captions_of(workload, s)) is not None}
    scorers = {s.name: scorer.fingerprint for s in strategies if scorer is not None and uses_scorer(s)}
    calibrations = {
        strategy.name: _calibration(workload, strategy, models[strategy.name], scorers.get(strategy.name))
        or begun_earlier(opened.out / strategy.name)
        for strategy in strategies
    }
    asks = lmms is not None or scorer is not None
    fitted = {name: calibration for name, calibration in calibrations.items() if calibration is not None}
    rerankers: Sequence[Reranker] = agents_of(opened, strategies, contest, lmms, scorer, fitted)
    processes = 1
    if workers is not None and strategies:
        crew = workers.crew(Share(plan, replace(contest, strategies=strategies), fitted))
        rerankers, images = crew.rerankers(strategies), HashedByCrew(images, crew.hashes)
        processes = len(crew.hosts)
    return await evaluate(
        workload.benchmark,
        rerankers,
        opened.out,
        provenance={"encoder": workload.encoder, "seed": plan.seed},
        lmms=models,
        limit=plan.limit,
        query_concurrency=QUERIES_AT_ONCE * processes,
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


def _calibration(
    workload: Workload, strategy: Strategy, model: ModelIdentity | None, scorer: str | None
) -> Calibration | None:
    def find() -> Calibration | None:
        return find_calibration(model, strategy, workload.encoder, scorer)

    return workload.recording.calibration_of(strategy, find) if workload.recording else find()

"""The runs behind the studies: made, or continued in their folders, then read back and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import ANSWERS_KEPT, interruptible
from fieldscope.service.wiring.prompt_pictures import with_examples
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.roles import open_lmms
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import (
    RUNS,
    Contest,
    EvaluationPlan,
    load_strategies,
    open_evaluation,
    run_opened,
)

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.eval.measures.paired import Paired
    from fieldscope.eval.measures.pairwise_study import HeadStudy
    from fieldscope.eval.measures.regressions import Harm
    from fieldscope.eval.measures.studies import BudgetStudy, ComparisonStudy
    from fieldscope.eval.types import Benchmark

PRIOR = "clip"
"""The strategy that leaves the first stage as it is."""

SCHEDULED = 0.15
"""The share of all comparisons of a head that the scheduler may ask for."""


def compare_pairs(runs: Sequence[Path], metric: str | None) -> tuple[str, list[tuple[Path, Path, Paired]]]:
    """The paired test of every two runs in a metric, without one in the benchmark's headline, and the metric's name.
    Raises `ConfigError` for runs over different queries."""
    from fieldscope.eval.measures.paired import compare
    from fieldscope.eval.reported import reported_as, shared
    from fieldscope.eval.runs.read import read_metric, read_metrics

    metric = metric or shared(reported_as(read_metrics(run).reported) for run in runs).headline
    values = {run: read_metric(run, metric) for run in runs}
    for a, b in combinations(runs, 2):
        if values[a].keys() != values[b].keys():
            raise ConfigError(f"{a} and {b} are runs over different queries; compare runs of one benchmark and split")
    return metric, [(a, b, compare(values[a], values[b])) for a, b in combinations(runs, 2)]


def paired_data(test: Paired) -> dict[str, Any]:
    """A paired test for programs."""
    return asdict(test) | {"significant": test.significant}


def run_harm(plan: EvaluationPlan, strategy_name: str, settings: Settings) -> Harm:
    """One benchmark under the first stage alone and under a strategy. The runs go below the plan's folder, into one
    named after the benchmark."""
    from fieldscope.eval.measures.regressions import harm
    from fieldscope.eval.runs.read import read_metric

    opened = open_evaluation(plan, [Contest(settings, load_strategies((PRIOR, strategy_name), prompts_for(settings)))])
    benchmark = opened.workload.benchmark
    opened = replace(opened, out=(plan.out or RUNS) / f"{benchmark.name}-{benchmark.split}")
    runs = run_opened(opened).runs
    metric = benchmark.reported.headline
    before, after = (read_metric(run.out, metric) for run in (runs[0], runs[-1]))
    return harm(before, after, {query: meta.supercategory for query, meta in benchmark.meta.items()}, metric)


def run_budgets(plan: EvaluationPlan, strategy_name: str, settings: Settings, shares: Sequence[float]) -> BudgetStudy:
    """A strategy without a budget, and again under each share of the average number of calls that it then makes for a
    query.

    Raises `ConfigError` for a strategy that asks nothing.
    """
    from fieldscope.agent.budget import Budget
    from fieldscope.eval.measures.studies import BudgetRun, budget_study
    from fieldscope.eval.runs.read import read_metric

    strategies = load_strategies((PRIOR, strategy_name), prompts_for(settings))
    opened = open_evaluation(plan, [Contest(settings, strategies)])
    runs = run_opened(replace(opened, out=opened.out / "free")).runs
    prior, free = runs[0], runs[-1]
    if not free.asked:
        raise ConfigError(f"strategy {strategy_name!r} asks nothing, so no budget changes it; name one that asks")
    asking = tuple(replace(contest, strategies=strategies[-1:]) for contest in opened.contests)
    metric = opened.workload.benchmark.reported.headline
    budgeted = {}
    for share in sorted(set(shares)):
        calls = max(1, round(share * free.asked / free.queries))
        (run,) = run_opened(
            replace(
                opened,
                contests=asking,
                plan=replace(plan, budget=Budget(max_calls=calls)),
                out=opened.out / f"calls-{calls}",  # named by its calls, since they decide the run
            )
        ).runs
        budgeted[share] = BudgetRun(share, calls, run.asked / run.queries, read_metric(run.out, metric))
    return budget_study(read_metric(prior.out, metric), read_metric(free.out, metric), budgeted, metric)


def write_budgets(study: BudgetStudy, out: Path) -> dict[str, Any]:
    """Draw a study of budgets and write its data into `out`; the data are also returned."""
    from fieldscope.eval.measures.figure import draw_budget, write_data

    steps = [
        {"smaller": smaller, "larger": larger, **paired_data(step)} for (smaller, larger), step in study.steps.items()
    ]
    data: dict[str, Any] = {
        "metric": f"m{study.metric}",
        "prior": study.prior,
        "free": study.free,
        "points": [asdict(point) for point in study.points],
        "steps": steps,
        "worse": [list(pair) for pair in study.worse],
    }
    draw_budget(study, out / "budget.png", f"m{study.metric}")
    write_data(out, "budget", data, data["points"])
    return data


def run_comparisons(
    plan: EvaluationPlan, strategy_name: str, settings: Settings, queries: int, head: int
) -> list[ComparisonStudy]:
    """Comparisons within the head of so many queries, which lie evenly among all, started from the prior alone and from
    the strategy's verdicts.

    Raises `ConfigError` for a strategy that does not verify and then compare pairs.
    """
    from fieldscope.agent.strategies.ordering import Fusion
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.measures.pairwise_study import summed_up
    from fieldscope.eval.runs.read import read_results

    (strategy,) = load_strategies((strategy_name,), prompts_for(settings))
    compare = strategy.compare
    if strategy.verify is None or compare is None or compare.mode != "pair":
        raise ConfigError(f"strategy {strategy_name!r} does not verify and then compare pairs; name one that does")
    calls = int(SCHEDULED * head * (head - 1))
    stage = compare.model_copy(update={"top_k": head, "max_calls": calls, "stop_below": 0.0})
    prior = Strategy(name="prior", retrieve=strategy.retrieve, fusion=Fusion(method="prior"))
    verdicts = strategy.model_copy(update={"name": "verdicts", "refine": None, "compare": None, "explain": None})
    opened = open_evaluation(plan, [Contest(settings, [strategy])])
    workload = replace(opened.workload, benchmark=_some(opened.workload.benchmark, queries))
    studies = []
    for start in (prior, verdicts):
        contests = tuple(replace(contest, strategies=(start,)) for contest in opened.contests)
        (run,) = run_opened(replace(opened, workload=workload, contests=contests)).runs
        comparing = start.model_copy(update={"compare": stage, "fusion": strategy.fusion})
        heads = interruptible(_study_heads(workload, comparing, read_results(run.out), settings), ANSWERS_KEPT)
        studies.append(summed_up(start.name, heads, workload.benchmark))
    return studies


def write_comparisons(studies: Sequence[ComparisonStudy], head: int, out: Path) -> dict[str, Any]:
    """Draw a study of comparisons and write its data into `out`; the data are also returned."""
    from fieldscope.eval.measures.figure import draw_comparison, write_data

    rows = [
        {
            "start": study.start,
            "queries": study.all_pairs.queries,
            "before": study.before,
            "all_pairs": study.all_pairs.mean_b,
            "all_pairs_p": study.all_pairs.p,
            "scheduled": study.scheduled.mean_b,
            "scheduled_p": study.scheduled.p,
            "recovered": study.recovered,
            "calls_all": study.calls_all,
            "calls_scheduled": study.calls_scheduled,
        }
        for study in studies
    ]
    data = {"metric": "nDCG@10", "head": head, "starts": [asdict(study) | {"harms": study.harms} for study in studies]}
    draw_comparison(studies, out / "comparison.png", "nDCG@10")
    write_data(out, "comparison", data, rows)
    return data


async def _study_heads(
    workload: Workload, strategy: Strategy, results: Mapping[str, RerankResult], settings: Settings
) -> dict[str, HeadStudy]:
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.measures.pairwise_study import state_of, study_head
    from fieldscope.retrieval.looked_at import with_looks

    images, queries = with_looks(workload.benchmark.images), workload.benchmark.queries
    studies = {}
    async with open_lmms(settings, with_examples(images, strategy.prompts), strategy.roles()) as lmms:
        calibration = find_calibration(lmms.identity(strategy.roles()), strategy, workload.encoder)
        resources = Resources(images, lmms, None, settings.concurrency, calibration)
        with progress(f"comparing, starting from the {strategy.name}") as report:
            for done, query in enumerate(queries, start=1):
                studies[query.id] = await study_head(state_of(query, results[query.id]), resources, strategy)
                report(done, len(queries))
    return studies


def _some(benchmark: Benchmark, queries: int) -> Benchmark:
    """So many of its queries, evenly among all, or all where it has no more."""
    every = len(benchmark.queries)
    some = min(queries, every)
    return replace(benchmark, queries=tuple(benchmark.queries[n * every // some] for n in range(some)))

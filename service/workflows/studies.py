"""The runs behind the studies: made or gone on with in their folders, read back, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import Workload, open_workload
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.feedback import progress, warn
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import open_lmm, require_server
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import evaluate_workload, flags_of, load_strategies

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult
    from fieldscope.eval.measures.pairwise_study import HeadStudy
    from fieldscope.eval.measures.regressions import Harm
    from fieldscope.eval.measures.studies import BudgetStudy, ComparisonStudy
    from fieldscope.eval.types import Benchmark

PRIOR = "clip"
"""The strategy that leaves the first stage as it is."""

METRIC = "AP@50"

SCHEDULED = 0.15
"""The share of all comparisons of a head that the scheduler may ask for."""


def run_harm(name: str, strategy_name: str, split: str | None, settings: Settings, out: Path | None) -> Harm:
    """One benchmark under the first stage alone and under a strategy. Without `out` the runs are those of
    `fieldscope eval`."""
    from fieldscope.eval.measures.regressions import harm
    from fieldscope.eval.runs.finished import read_metric

    strategies = load_strategies((PRIOR, strategy_name))
    workload, flags = opened(name, split, strategies, settings)
    folder = named_folder(workload, out or Path("runs"))
    runs = evaluate_workload(workload, strategies, settings, folder, flags=flags)
    prior, found = (read_metric(run.out, METRIC) for run in (runs[0], runs[-1]))
    return harm(prior, found, {query: meta.supercategory for query, meta in workload.benchmark.meta.items()})


def run_budgets(
    name: str, strategy_name: str, shares: Sequence[float], split: str | None, settings: Settings, out: Path
) -> BudgetStudy:
    """A strategy without a budget, and again under each share of the calls that it then makes for a query, in the mean.

    Raises `ConfigError` for a strategy that asks nothing.
    """
    from fieldscope.agent.budget import Budget
    from fieldscope.eval.measures.studies import BudgetRun, budget_study
    from fieldscope.eval.runs.finished import read_metric

    strategies = load_strategies((PRIOR, strategy_name))
    workload, flags = opened(name, split, strategies, settings)
    runs = evaluate_workload(workload, strategies, settings, out / "free", flags=flags)
    prior, free = runs[0], runs[-1]
    if not free.asked:
        raise ConfigError(f"strategy {strategy_name!r} asks nothing, so there is no budget to give it")
    budgeted = {}
    for share in sorted(set(shares)):
        calls = max(1, round(share * free.asked / free.queries))
        # Named by its calls, since they are what decides the run.
        (run,) = evaluate_workload(
            workload, strategies[-1:], settings, out / f"calls-{calls}", flags=flags, budget=Budget(max_calls=calls)
        )
        budgeted[share] = BudgetRun(share, calls, run.asked / run.queries, read_metric(run.out, METRIC))
    return budget_study(read_metric(prior.out, METRIC), read_metric(free.out, METRIC), budgeted)


def run_comparisons(
    name: str, strategy_name: str, queries: int, head: int, split: str | None, settings: Settings, out: Path
) -> list[ComparisonStudy]:
    """Comparisons within the head of so many queries, which lie evenly among all, started from the prior alone and from
    the strategy's verdicts.

    Raises `ConfigError` for a strategy that does not verify and then compare pairs.
    """
    from fieldscope.agent.strategies.settings import Fusion
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.eval.measures.pairwise_study import summed_up
    from fieldscope.eval.runs.finished import read_results

    (strategy,) = load_strategies((strategy_name,))
    compare = strategy.compare
    if strategy.verify is None or compare is None or compare.mode != "pair":
        raise ConfigError(f"strategy {strategy_name!r} does not verify and then compare pairs; name one that does")
    calls = int(SCHEDULED * head * (head - 1))
    stage = compare.model_copy(update={"top_k": head, "max_calls": calls, "stop_below": 0.0})
    prior = Strategy(name="prior", retrieve=strategy.retrieve, fusion=Fusion(method="prior"))
    verdicts = strategy.model_copy(update={"name": "verdicts", "refine": None, "compare": None, "explain": None})
    workload, flags = opened(name, split, [strategy], settings)
    workload = replace(workload, benchmark=_some(workload.benchmark, queries))
    found = []
    for start in (prior, verdicts):
        (run,) = evaluate_workload(workload, [start], settings, out, flags=flags)
        comparing = start.model_copy(update={"compare": stage, "fusion": strategy.fusion})
        studying = _study_heads(workload, comparing, read_results(run.out), settings)
        studies = interruptible(studying, "answers so far are in the cache, and the same command finds them there")
        found.append(summed_up(start.name, studies, workload.benchmark))
    return found


async def _study_heads(
    workload: Workload, strategy: Strategy, results: Mapping[str, RerankResult], settings: Settings
) -> dict[str, HeadStudy]:
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.measures.pairwise_study import state_of, study_head

    images, queries = workload.benchmark.images, workload.benchmark.queries
    studies = {}
    async with open_lmm(settings, images) as lmm:
        calibration = find_calibration(lmm.identity, strategy, workload.encoder)
        deps = Resources(images, lmm, None, settings.concurrency, calibration)
        with progress(f"comparing, started from the {strategy.name}") as report:
            for done, query in enumerate(queries, start=1):
                studies[query.id] = await study_head(state_of(query, results[query.id]), deps, strategy)
                report(done, len(queries))
    return studies


def opened(
    name: str, split: str | None, strategies: Sequence[Strategy], settings: Settings
) -> tuple[Workload, tuple[str, ...]]:
    """A benchmark for these strategies, with the warnings that its runs must carry, which are also printed. Raises
    before any work where it can't be run."""
    from fieldscope.eval.tuning.estimate import require_context

    context = require_server(settings) if any(strategy.prompts for strategy in strategies) else None
    workload = open_workload(name, split, settings)
    require_context(strategies, workload.benchmark.queries, context)
    flags = flags_of(workload, strategies, settings)
    for flag in flags:
        warn(flag)
    return workload, flags


def _some(benchmark: Benchmark, queries: int) -> Benchmark:
    """So many of its queries, evenly among all, or all where it has no more."""
    every = len(benchmark.queries)
    some = min(queries, every)
    return replace(benchmark, queries=tuple(benchmark.queries[n * every // some] for n in range(some)))


def named_folder(workload: Workload, parent: Path) -> Path:
    """Where a benchmark's runs lie below a folder for several."""
    return parent / f"{workload.benchmark.name}-{workload.benchmark.split}"

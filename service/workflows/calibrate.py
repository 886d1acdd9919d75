"""Fitting a strategy to a model on a validation split: the questions, the comparisons, and the fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.benchmarks import NAMES, Workload
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.interruption import interruptible
from fieldscope.service.wiring.models import open_lmm
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.evaluate import evaluate_workload, load_strategies
from fieldscope.service.workflows.studies import opened

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import RerankResult


def fit_strategy(name: str, strategy_name: str, split: str, settings: Settings, runs: Path) -> Calibration:
    """Run a strategy's verification on a split, with every question asked, into `runs/STRATEGY`; compare some images of
    each head where the strategy compares; and fit.

    Raises `ConfigError`, before anything is opened, for a split that may not decide a setting, and for files that name
    none: they may be a test split.
    """
    from fieldscope.eval.runs.read import read_results
    from fieldscope.eval.tuning.calibrate import require_selection_split, verification

    require_selection_split(split)
    (strategy,) = load_strategies((strategy_name,))
    questions = verification(strategy)
    require_named_split(name, split)
    workload, flags = opened(name, split, [strategy], settings)
    (run,) = evaluate_workload(workload, [questions], settings, runs, flags=flags)
    results = read_results(run.out)
    work = _compare_and_fit(workload, strategy, results, settings)
    return interruptible(work, "answers so far are in the cache, and the same command finds them there")


def require_named_split(name: str, split: str) -> None:
    """Raise `ConfigError` for Parquet files that do not say which split they are: they may be a test split."""
    from fieldscope.eval.benchmarks.inquire_fullrank import is_fullrank
    from fieldscope.eval.benchmarks.inquire_rerank import named_splits
    from fieldscope.eval.benchmarks.splits import WHOLE

    path = Path(name)
    parquet = name not in NAMES and path.exists() and not is_fullrank(path)
    if parquet and named_splits(path) == {WHOLE}:
        raise ConfigError(
            f"the files of {name} do not say which split they are, and settings are never fitted on a test split; put "
            f"{split!r} at the front of their names"
        )


async def _compare_and_fit(
    workload: Workload, strategy: Strategy, results: Mapping[str, RerankResult], settings: Settings
) -> Calibration:
    from fieldscope.agent.calibration import calibration_key
    from fieldscope.agent.resources import Resources
    from fieldscope.eval.measures.pairwise_study import ask_groups, state_of
    from fieldscope.eval.tuning.calibrate import calibrate, draw_groups, heads

    benchmark = workload.benchmark
    told = {query.id: results[query.id] for query in benchmark.queries}
    async with open_lmm(settings, benchmark.images) as lmm:
        if compare := strategy.compare:
            size = compare.set_size if compare.mode == "set" else 2
            deps = Resources(benchmark.images, lmm, None, settings.concurrency)
            best = heads(benchmark, told)
            with progress("comparing") as report:
                for done, query in enumerate(benchmark.queries, start=1):
                    groups = draw_groups(best[query.id], size, query.id)
                    asked = await ask_groups(state_of(query, told[query.id]), groups, deps, strategy)
                    told[query.id] = told[query.id].model_copy(update={"comparisons": asked})
                    report(done, len(benchmark.queries))
        return calibrate(benchmark, told, calibration_key(lmm.identity, strategy, workload.encoder))

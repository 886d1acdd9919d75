"""The runs behind the studies: made or gone on with in their folders, read back, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ConfigError
from service.console import warn
from service.settings import Settings
from service.workload import Workload, evaluate_workload, flags_of, load_strategies, open_workload

if TYPE_CHECKING:
    from agent.strategies.strategy import Strategy
    from eval.harm import Harm
    from eval.studies import BudgetStudy, PerQuery
    from eval.types import RunSummary

PRIOR = "clip"
"""The strategy that leaves the first stage as it is."""

METRIC = "AP@50"


def run_harm(
    name: str, strategy_name: str, split: str | None, settings: Settings, out: Path | None
) -> Harm:
    """One benchmark under the first stage alone and under a strategy. Without `out` the runs are those of
    `fieldscope eval`."""
    from eval.finished import read_metric
    from eval.harm import harm

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
    from agent.budget import Budget
    from eval.finished import read_metric
    from eval.studies import BudgetRun, budget_study

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


def opened(
    name: str, split: str | None, strategies: Sequence[Strategy], settings: Settings
) -> tuple[Workload, tuple[str, ...]]:
    """A benchmark for these strategies, with the warnings that its runs must carry, which are also printed. Raises
    before any work where it can't be run."""
    from service.wiring import require_server

    if any(strategy.prompts for strategy in strategies):
        require_server(settings)
    workload = open_workload(name, split, settings)
    flags = flags_of(workload, strategies, settings)
    for flag in flags:
        warn(flag)
    return workload, flags


def named_folder(workload: Workload, parent: Path) -> Path:
    """Where a benchmark's runs lie below a folder for several."""
    return parent / f"{workload.benchmark.name}-{workload.benchmark.split}"

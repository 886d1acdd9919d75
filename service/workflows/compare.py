"""Finished runs over the same queries, compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.agent.lmm.identity import served_name
from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.settings import BUNDLED

if TYPE_CHECKING:
    from fieldscope.eval.measures.run_comparison import ScoredComparison
    from fieldscope.eval.prices import Price
    from fieldscope.eval.runs.scored import ScoredRun


def compare_finished(paths: Sequence[Path], metrics: Sequence[str], price_file: Path | None) -> ScoredComparison:
    """Compare the runs in these folders in pairs, by these metrics or, where there are none, those in which their
    benchmark's results are reported; with a price file also by what they cost.

    Raises `ConfigError` for fewer than two runs, and for prices that are missing or in several currencies.
    """
    from fieldscope.eval.measures.further import with_metrics
    from fieldscope.eval.measures.run_comparison import compare_runs

    runs, currency = [with_metrics(run, metrics) for run in read_scored_runs(paths)], None
    if len(runs) < 2:
        raise ConfigError(f"{runs[0].folder} is the only run there; name two or more different runs")
    if price_file is not None:
        runs, currency = _priced(runs, price_file)
    with progress("comparing") as report:
        return compare_runs(runs, tuple(dict.fromkeys(metrics)), currency, report)


def read_scored_runs(paths: Sequence[Path]) -> list[ScoredRun]:
    """The finished runs in these folders, or in the output folders of `fieldscope eval`, with their scores. Raises
    `ConfigError` for a folder without a finished run."""
    from fieldscope.eval.runs.read import names_of, run_folders
    from fieldscope.eval.runs.scored import read_scored

    folders = run_folders(paths)
    runs: list[ScoredRun] = []
    with progress("reading runs") as report:
        for folder, name in zip(folders, names_of(folders), strict=True):
            runs.append(read_scored(folder, name))
            report(len(runs), len(folders))
    return runs


def _priced(runs: Sequence[ScoredRun], file: Path) -> tuple[list[ScoredRun], str | None]:
    """The runs with what their tokens cost, and the currency, None where no run has a model. A run without a model
    costs nothing."""
    from fieldscope.agent.roles import roles_by_model
    from fieldscope.eval.prices import load_price

    models = {model for run in runs for model in roles_by_model(run.lmm)}
    prices = {model: load_price(file, model_name(model)) for model in sorted(models)}
    if len(currencies := sorted({price.currency for price in prices.values()})) > 1:
        raise ConfigError(f"{file}: the runs' prices are in {' and '.join(currencies)}; give them in one currency")
    priced = [replace(run, money=_money(run, prices)) for run in runs]
    return priced, currencies[0] if currencies else None


def _money(run: ScoredRun, prices: Mapping[str, Price]) -> float:
    """What a run's tokens cost, those of each role by the price of its model."""
    if run.lmm is None:
        return 0.0
    if isinstance(run.lmm, str):
        return prices[run.lmm].of(run.spent.prompt_tokens, run.spent.completion_tokens)
    spent = [(prices[run.lmm[role]], usage) for role, usage in run.by_role.items() if role in run.lmm]
    return sum(price.of(usage.prompt_tokens, usage.completion_tokens) for price, usage in spent)


def model_name(identity: str) -> str:
    """The name by which a price file knows a model: that under which it is served, or `bundled`."""
    return served_name(identity) or BUNDLED

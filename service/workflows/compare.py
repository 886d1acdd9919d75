"""Finished runs over the same queries, compared in pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.feedback import progress

if TYPE_CHECKING:
    from fieldscope.eval.measures.run_comparison import ScoredComparison
    from fieldscope.eval.runs.scored import ScoredRun

_SERVED = re.compile(r"openai:(?P<model>.+?)(@.*)?#(png|jpeg\d+)[<=\dpx,]*(#.*)?")
"""The identity of a served model."""


def compare_finished(paths: Sequence[Path], metrics: Sequence[str], price_file: Path | None) -> ScoredComparison:
    """Compare the runs in these folders in pairs, by these metrics or, where there are none, the usual ones; with a
    price file also by what they cost.

    Raises `ConfigError` for fewer than two runs, and for prices that are missing or in several currencies.
    """
    from fieldscope.eval.measures.run_comparison import METRICS, compare_runs

    runs, currency = read_scored_runs(paths), None
    if len(runs) < 2:
        raise ConfigError(f"{runs[0].folder} is the only run there; name two or more different runs")
    if price_file is not None:
        runs, currency = _priced(runs, price_file)
    with progress("comparing") as report:
        return compare_runs(runs, tuple(dict.fromkeys(metrics)) or METRICS, currency, report)


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
    from fieldscope.eval.prices import load_price

    prices = {run.lmm: load_price(file, _model_name(run.lmm)) for run in runs if run.lmm is not None}
    if len(currencies := sorted({price.currency for price in prices.values()})) > 1:
        raise ConfigError(f"{file}: the runs' prices are in {' and '.join(currencies)}; give them in one currency")
    priced = [
        replace(run, money=prices[run.lmm].of(run.spent.prompt_tokens, run.spent.completion_tokens) if run.lmm else 0.0)
        for run in runs
    ]
    return priced, currencies[0] if currencies else None


def _model_name(identity: str) -> str:
    """The name by which a price file knows a model: that under which it is served, or `bundled`."""
    served = _SERVED.fullmatch(identity)
    return served["model"] if served else "bundled"

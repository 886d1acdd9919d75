"""`fieldscope calibrate`: temperatures and weights for a model and a strategy, from a validation split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import (
    file_option,
    folder_option,
    json_option,
    model_options,
    scorer_option,
    strategy_option,
)
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.agent.calibration import Calibration


@click.command()
@click.argument("benchmark", metavar="[BENCHMARK]", default="fieldnotes-rerank")
@strategy_option
@click.option("--split", default="validation", show_default=True, metavar="NAME", help="Test splits are refused.")
@click.option(
    "--composed",
    metavar="BENCHMARK",
    help="Choose when nothing matches a query with a reference image by this benchmark, on the same split.",
)
@file_option(
    "--out",
    help_text="The file for the calibration; others in it are kept.  [default: in the cache folder, where it is found]",
)
@folder_option(
    "The folder for the run that the calibration is fitted to.",
    "--runs",
    default=Path("runs/calibrate"),
    show_default=True,
)
@click.option(
    "--also",
    nargs=2,
    multiple=True,
    metavar="BENCHMARK SPLIT",
    help="A further benchmark and its split, to fit to all of them together. Repeatable.",
)
@json_option
@scorer_option
@model_options
def calibrate(
    benchmark: str,
    name: str,
    split: str,
    composed: str | None,
    out: Path | None,
    runs: Path,
    also: tuple[tuple[str, str], ...],
    as_json: bool,
    settings: Settings,
) -> None:
    """Fit a strategy's temperatures and weights to a model, on a validation split.

    Asks every question of the strategy's verification, and compares some of the best images of each query in both
    orders. The calibration is used wherever the same model answers the same prompts after the same first stage.
    """
    from fieldscope.service.wiring.calibrations import save_calibration
    from fieldscope.service.workflows.calibrate import fit_strategy
    from fieldscope.service.workflows.evaluate import EvaluationPlan

    plans = [EvaluationPlan(*each, out=runs / "-".join(map(_folder_name, each))) for each in also]
    calibration = fit_strategy(EvaluationPlan(benchmark, split, out=runs), name, settings, plans, composed)
    file = save_calibration(calibration, out)
    if as_json:
        show_json(calibration.model_dump(mode="json") | {"out": str(file)})
    else:
        show(_table(calibration), f"Kept in {file}")
    if calibration.consistency is not None and calibration.comparison_weight == 0.0:
        note("Comparisons are off: this model's calibration shows no benefit.")


def _folder_name(name: str) -> str:
    """A benchmark's name or path as a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")


def _table(fit: Calibration) -> Table:
    from fieldscope.agent.closer_looks import set_of
    from fieldscope.service.cli.tables.table import new_table

    rows = {
        "temperature of verdicts": f"{fit.temperature:.3f}",
        "weight of the whole query": f"{fit.whole_weight:.3f}",
        "odds that a match looks like none": f"{fit.miss_odds:.4f}",
        "odds that another looks like a match": f"{fit.false_alarm_odds:.4f}",
        "cost of a part that fails": f"{fit.part_cost:.3f}",
        "weight of the prior": f"{fit.prior_weight:.3f}",
        "bias": f"{fit.bias:+.3f}",
        "spread": f"{fit.spread:.3f}",
        "predicates per word": f"{fit.predicates_per_word:.3f}",
        **{f"pass rate of {kind}": f"{rate:.1%}" for kind, rate in fit.pass_rates.items()},
    }
    if fit.nothing_below is not None:
        rows["nothing matches where the best P(match) is below"] = f"{fit.nothing_below:.3f}"
    if fit.looked_nothing_below is not None:
        rows["the same after closer looks"] = f"{fit.looked_nothing_below:.3g}"
    if fit.composed_nothing_below is not None:
        rows["the same for a query with a reference image"] = f"{fit.composed_nothing_below:.3g}"
    if fit.consistency is not None:
        rows |= {
            "comparisons that agree in both orders": f"{fit.consistency:.1%}",
            "bias for the first image": f"{fit.position_bias:+.3f}",
            "weight of a comparison": f"{fit.comparison_weight:.3f}",
        }
    for looks in fit.looks:
        taken = {kind.replace("_", " "): number for kind, number in set_of(looks)._asdict().items()}
        named = ", ".join(f"{number} {kind}" for kind, number in taken.items() if number)
        moved = max((*looks.moves.values(), *looks.moves_small.values()), default=0.0)
        rows[f"looks: {named}"] = f"the last one moves the log-odds of a match by up to {moved:.2f}"
    if fit.joint_loss is not None:
        rows |= {
            "temperature of joint answers": f"{fit.joint_temperature:.3f}",
            "weight of the whole query in them": f"{fit.joint_whole_weight:.3f}",
            "points of mAP that joint answers cost": f"{100 * fit.joint_loss:+.2f}",
        }
    title = f"fitted on {fit.benchmark} ({fit.split}), {fit.queries:,} queries"
    table = new_table("", "", texts=2, title=title, header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table

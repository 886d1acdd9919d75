"""`fieldscope calibrate`: temperatures and weights for a model and a strategy, from a validation split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option, model_options
from fieldscope.service.wiring.feedback import note
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.agent.calibration import Calibration


@click.command()
@click.argument("benchmark", metavar="[BENCHMARK]", default="fieldnotes-rerank")
@click.option("--strategy", "name", default=DEFAULT_STRATEGY, show_default=True, metavar="NAME|FILE")
@click.option("--split", default="validation", show_default=True, metavar="NAME", help="A test split is refused.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep it there, beside what else is in the file.  [default: in the cache folder, where it is found]",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/calibrate"),
    show_default=True,
    metavar="FOLDER",
    help="Where the run goes that it is fitted to.",
)
@json_option
@model_options
def calibrate(
    benchmark: str, name: str, split: str, out: Path | None, runs: Path, as_json: bool, settings: Settings
) -> None:
    """Fit a strategy's temperatures and weights to a model, on a validation split.

    Asks every question of the strategy's verification, and compares some images of each query's head in both orders.
    The fit is used wherever the same model is asked with the same prompts after the same first stage.
    """
    from fieldscope.service.wiring.calibrations import save_calibration
    from fieldscope.service.workflows.calibrate import fit_strategy

    fitted = fit_strategy(benchmark, name, split, settings, runs)
    file = save_calibration(fitted, out)
    if as_json:
        show_json(fitted.model_dump(mode="json") | {"out": str(file)})
    else:
        show(_table(fitted), f"Kept in {file}")
    if fitted.consistency is not None and fitted.comparison_weight == 0.0:
        note("comparison does not pay for this model, so these strategies leave it out")


def _table(fitted: Calibration) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"fitted on {fitted.benchmark} ({fitted.split}), {fitted.queries:,} queries"
    table = Table(title=plain(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.title_justify = "left"
    rows = {
        "temperature of verdicts": f"{fitted.temperature:.3f}",
        "weight of the whole query": f"{fitted.whole_weight:.3f}",
        "odds that a match looks like none": f"{fitted.miss_odds:.4f}",
        "odds that another looks like a match": f"{fitted.false_alarm_odds:.4f}",
        "weight of the prior": f"{fitted.prior_weight:.3f}",
        "bias": f"{fitted.bias:+.3f}",
        "spread": f"{fitted.spread:.3f}",
        "predicates a word": f"{fitted.predicates_per_word:.3f}",
        **{f"pass rate of {kind}": f"{rate:.1%}" for kind, rate in fitted.pass_rates.items()},
    }
    if fitted.consistency is not None:
        rows |= {
            "comparisons alike in both orders": f"{fitted.consistency:.1%}",
            "bias for the first shown": f"{fitted.position_bias:+.3f}",
            "weight of a comparison": f"{fitted.comparison_weight:.3f}",
        }
    for name, value in rows.items():
        table.add_row(plain(name), value)
    return table

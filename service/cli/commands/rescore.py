"""`fieldscope rescore`: a finished run ranked again, for nothing."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.multi_value_options import SpacedCommand
from fieldscope.service.cli.options import json_option, runs_out


@click.command(cls=SpacedCommand)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    "names",
    multiple=True,
    metavar="NAME|FILE ...",
    help="Strategies whose fusion is to rank it.  [default: the run's own]",
)
@click.option(
    "--calibration",
    "fits",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="What `fieldscope calibrate --out` wrote, in the place of the run's calibration.",
)
@click.option(
    "--reread", is_flag=True, help="Read the answers in the response cache again, as this version reads them."
)
@runs_out
@json_option
def rescore(run: Path, names: tuple[str, ...], fits: Path | None, reread: bool, out: Path, as_json: bool) -> None:
    """Rank a finished run again with other fusion weights, another calibration or another reading of the answers.

    RUN is the folder of one strategy's run. What was asked is taken as it is, so all prompts of a strategy must be
    among the run's. No model, server or picture is needed. A strategy that would ask something else is for
    `fieldscope eval --replay`.
    """
    from fieldscope.service.cli.tables.evaluation import show_runs
    from fieldscope.service.workflows import rescore as rescoring

    summaries = rescoring.rescore(run, names, fits, reread, out)
    show_runs(summaries, out, as_json)

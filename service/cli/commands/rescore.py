"""`fieldscope rescore`: a finished run ranked again, without a model."""

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
    help="Strategies whose fusion ranks it.  [default: the run's own]",
)
@click.option(
    "--calibration",
    "fits",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="A file of `fieldscope calibrate --out`, to replace the run's calibration.",
)
@click.option("--reread", is_flag=True, help="Read the answers in the response cache again, with this version's rules.")
@runs_out
@json_option
def rescore(run: Path, names: tuple[str, ...], fits: Path | None, reread: bool, out: Path, as_json: bool) -> None:
    """Rank a finished run again with other fusion weights, another calibration, or the answers read again.

    RUN is the folder of one strategy's run. The answers stay as they are, so all prompts of a strategy must be among
    the run's. No model, server or images are needed. For a strategy with other prompts, use `fieldscope eval --replay`.
    """
    from fieldscope.service.cli.tables.evaluation import show_runs
    from fieldscope.service.workflows import rescore as rescoring

    summaries = rescoring.rescore(run, names, fits, reread, out)
    show_runs(summaries, out, as_json)

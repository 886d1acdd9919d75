"""`fieldscope measure reliability`, `audit` and `agreement`: whether what a model says can be trusted."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import folder_option, json_option, runs_argument

SHOWN = 20
"""How many sunk images are shown without `--all`."""


@click.command()
@runs_argument
@folder_option("Also write a figure of each run (PNG) and all data (JSON and CSV) there.")
@json_option
def reliability(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Check whether probabilities mean what they say, before and after calibration.

    Prints the expected calibration error (with a 95 % interval), the same over bins of equal mass, and the Brier score
    of P(expected) by kind of predicate, and of P(match). RUN is a run's folder, or an output folder of `fieldscope
    eval`.
    """
    from fieldscope.service.cli.tables.audit import reliability_tables
    from fieldscope.service.workflows.audit import measure_reliability

    reports = measure_reliability(runs, out)
    if as_json:
        show_json({"runs": [report.data for report in reports]})
        return
    for report in reports:
        show(*reliability_tables(report), *([f"The figure is {out / report.figure}"] if out else []))
    if out:
        show(f"Its data are in {out / 'reliability.json'}")


@click.command()
@runs_argument
@folder_option("Also write all data (JSON and CSV) there.")
@click.option("--all", "everything", is_flag=True, help=f"Show all sunk images, not only the gravest {SHOWN}.")
@json_option
def audit(runs: tuple[Path, ...], out: Path | None, everything: bool, as_json: bool) -> None:
    """Check every verdict against what is true, and find the predicates that sank relevant images.

    For FieldNotes the truth is its scene graph. Elsewhere it is relevance: all predicates hold on a relevant image, and
    at least one fails on an irrelevant image, but not which one. So only misses on relevant images can be counted. RUN
    is a run's folder, or an output folder of `fieldscope eval`.
    """
    from fieldscope.service.cli.tables.audit import audit_tables
    from fieldscope.service.workflows.audit import measure_audit

    reports = measure_audit(runs, out)
    if as_json:
        show_json({"runs": [report.data for report in reports]})
        return
    for report in reports:
        show(*audit_tables(report, None if everything else SHOWN))
    if out:
        show(f"All data are in {out / 'audit.json'}")


@click.command()
@runs_argument
@folder_option("Also write a figure (PNG) and its data (JSON and CSV) there.")
@json_option
def agreement(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Measure how far models, or prompts, give the same answers to the same questions.

    Prints Cohen's kappa and the share of equal verdicts of every two runs, on the predicates that both asked about the
    same image for the same query. RUN is a run's folder, or an output folder of `fieldscope eval`.
    """
    from fieldscope.service.cli.tables.audit import agreement_table
    from fieldscope.service.workflows.audit import measure_agreement

    names, pairs, data = measure_agreement(runs, out)
    if as_json:
        show_json(data)
        return
    show(agreement_table(names, pairs))
    if out:
        show(f"The figure is {out / 'agreement.png'}, with its data beside it")

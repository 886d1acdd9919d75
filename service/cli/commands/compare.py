"""`fieldscope compare`: runs against each other, over the same queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option
from fieldscope.service.wiring.feedback import progress, warn

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.run_comparison import ScoredComparison
    from fieldscope.eval.runs.scored import ScoredRun
    from fieldscope.service.viewer.report.sheets import Sheet

_LISTED = 3
"""So many queries are listed of those that a pair won, and of those that it lost; of at most so many pairs."""

_SERVED = re.compile(r"openai:(?P<model>.+?)(@.*)?#png(<=\d+)?(#.*)?")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="As in a run's metrics.json, again for each; the first is the main one.  [default: AP@50, nDCG@50, MRR]",
)
@click.option(
    "--prices",
    "price_file",
    type=_file,
    metavar="FILE",
    help="What tokens cost. YAML with input_per_million, output_per_million and currency, or with these below the name "
    "of each model.",
)
@click.option("--markdown", type=_file, metavar="FILE", help="Write the report as Markdown.")
@click.option("--html", type=_file, metavar="FILE", help="Write the report as one page with figures, to open anywhere.")
@json_option
def compare(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    price_file: Path | None,
    markdown: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare finished runs over the same queries, every two of them.

    A RUN is a run's folder, or the output folder of `fieldscope eval` with all runs in it. Tells what B changes against
    A, query by query, with the p of a paired randomisation test (as it is, and by Holm's correction for all pairs) and
    a bootstrap interval; where it changes it; what each run costs; and how small a difference could have been found.
    """
    from fieldscope.eval.measures.run_comparison import METRICS, compare_runs
    from fieldscope.eval.runs.read import names_of, run_folders
    from fieldscope.eval.runs.scored import read_scored

    folders = run_folders(runs)
    if len(folders) < 2:
        raise ConfigError(f"{folders[0]} is the only run there; name two or more different runs")
    with progress("reading") as report:
        read: list[ScoredRun] = []
        for folder, name in zip(folders, names_of(folders), strict=True):
            read.append(read_scored(folder, name))
            report(len(read), len(folders))
    currency = None
    if price_file:
        read, currency = _priced(read, price_file)
    with progress("comparing") as report:
        found = compare_runs(read, tuple(dict.fromkeys(metrics)) or METRICS, currency, report)
    if markdown:
        from fieldscope.service.viewer.report.markdown import render_markdown

        _write(markdown, render_markdown(found))
    if html:
        from fieldscope.service.viewer.report.page import render_page

        _write(html, render_page(found))
    if as_json:
        from fieldscope.service.viewer.report.rows import payload

        show_json(payload(found))
    else:
        _show(found, [file for file in (markdown, html) if file])


def _priced(runs: Sequence[ScoredRun], file: Path) -> tuple[list[ScoredRun], str | None]:
    """The runs with what their tokens cost, and the currency. A run without a model costs nothing; where none has one,
    there is nothing to price."""
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


def _show(found: ScoredComparison, written: Sequence[Path]) -> None:
    from fieldscope.service.viewer.report import wording
    from fieldscope.service.viewer.report.sheets import EXPLAINED, groups_sheet, pairs_sheet, queries_sheet, runs_sheet

    show(_table(runs_sheet(found)))
    show(*(_table(pairs_sheet(found, metric)) for metric in found.metrics))
    few = len(found.pairs) <= _LISTED
    if few and "supercategory" in found.pairs[0].groups:
        show(_table(groups_sheet(found, "supercategory")))
    for pair in found.pairs if few else ():
        for what, queries in (("won", pair.won(found.main)), ("lost", pair.lost(found.main))):
            if queries:
                title = f"{pair.b.name} against {pair.a.name}: {what} most in {found.main}, percent"
                show(_table(queries_sheet(found, pair, queries[:_LISTED], title)))
                show(f"to see why: {wording.trace_command(pair, queries[0])}", "")
    show(EXPLAINED, "", *wording.findings(found))
    if written:
        show(f"Written: {', '.join(map(str, written))}")
    else:
        show("All queries and groups are in --html FILE, --markdown FILE and --json")
    for note in found.notes:
        warn(note)


def _table(sheet: Sheet) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=plain(sheet.title), box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.caption = plain(sheet.below, "dim") if sheet.below else None
    for place, column in enumerate(sheet.columns):
        table.add_column(plain(column), justify="left" if place < sheet.texts else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(plain, row))
    return table


def _write(file: Path, text: str) -> None:
    """The whole file, or the old one as it was."""
    try:
        replace_file(file, text)
    except OSError as error:
        raise ConfigError(f"can't write {file} ({error.strerror}); choose another place") from error

"""`fieldscope compare`: runs against each other, over the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.files import write_text
from fieldscope.service.cli.options import file_option, json_option, price_option
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.wiring.feedback import warn

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.run_comparison import Contrast
    from fieldscope.service.viewer.report.sheets import Sheet

_LISTED = 3
"""How many queries are listed of those that a pair won, and of those that it lost; and of how many pairs at most."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric of metrics.json; may be repeated. The first is the main one.  [default: AP@50, nDCG@50, MRR]",
)
@price_option("What the runs' tokens cost.")
@file_option("--markdown", help_text="Write the report as Markdown.")
@file_option("--html", help_text="Write the report as one HTML page with figures.")
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

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. Shows how B differs from A
    query by query, with the p of a paired randomisation test (plain, and with Holm's correction for all pairs) and a
    bootstrap interval; on which queries; what each run costs; and how small a difference the test could have found.
    """
    from fieldscope.service.workflows.compare import compare_finished

    comparison = compare_finished(runs, metrics, price_file)
    if markdown:
        from fieldscope.service.viewer.report.markdown import render_markdown

        write_text(markdown, render_markdown(comparison))
    if html:
        from fieldscope.service.viewer.report.page import render_page

        write_text(html, render_page(comparison))
    if as_json:
        from fieldscope.service.viewer.report.rows import payload

        show_json(payload(comparison))
    else:
        _show(comparison, [file for file in (markdown, html) if file])


def _show(comparison: Contrast, written: Sequence[Path]) -> None:
    from fieldscope.service.viewer.report import wording
    from fieldscope.service.viewer.report.sheets import EXPLAINED, groups_sheet, pairs_sheet, queries_sheet, runs_sheet

    show(_table(runs_sheet(comparison)))
    show(*(_table(pairs_sheet(comparison, metric)) for metric in comparison.metrics))
    few = len(comparison.pairs) <= _LISTED
    if few and "supercategory" in comparison.pairs[0].groups:
        show(_table(groups_sheet(comparison, "supercategory")))
    for pair in comparison.pairs if few else ():
        for what, queries in (("won", pair.won(comparison.main)), ("lost", pair.lost(comparison.main))):
            if queries:
                title = f"{pair.b.name} against {pair.a.name}: {what} most in {comparison.main}, percent"
                show(_table(queries_sheet(comparison, pair, queries[:_LISTED], title)))
                show(f"to see why: {wording.trace_command(pair, queries[0])}", "")
    show(EXPLAINED, "", *wording.findings(comparison))
    if written:
        show(f"Written: {', '.join(map(str, written))}")
    else:
        show("--html FILE, --markdown FILE and --json have all queries and groups")
    for note in comparison.notes:
        warn(note)


def _table(sheet: Sheet) -> Table:
    table = new_table(*sheet.columns, texts=sheet.texts, title=sheet.title, caption=sheet.below, narrow=True)
    for row in sheet.rows:
        table.add_row(*map(plain, row))
    return table

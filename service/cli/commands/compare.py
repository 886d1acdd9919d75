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
    import rich.table

    from fieldscope.eval.measures.run_comparison import ScoredComparison
    from fieldscope.service.viewer.comparison.presentation import Table

_LISTED = 3
"""The number of queries listed as won, and as lost, by a pair; lists are left out where there are more pairs."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric of metrics.json, or one at any other cut-off (AP@5, R@20). Repeat for more; the first is the main "
    "one.  [default: the benchmark's own, such as AP@50, nDCG@50, MRR]",
)
@price_option("What the runs' tokens cost.")
@file_option("--markdown", help_text="Write the report as Markdown.")
@file_option("--html", help_text="Write the report as one HTML page with charts.")
@json_option
def compare(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    price_file: Path | None,
    markdown: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare every two of several finished runs over the same queries.

    A RUN is a run's folder, or the output folder of `fieldscope eval`, which stands for all runs in it. Shows what run
    B changes against run A, query by query and by group of queries, with a bootstrap interval and the p value of a
    paired randomisation test (also adjusted for all pairs by Holm); what each run costs; and which differences the
    test is able to detect.
    """
    from fieldscope.service.workflows.compare import compare_finished

    comparison = compare_finished(runs, metrics, price_file)
    if markdown:
        from fieldscope.service.viewer.comparison.markdown import render_markdown

        write_text(markdown, render_markdown(comparison))
    if html:
        from fieldscope.service.viewer.comparison.html import render_page

        write_text(html, render_page(comparison))
    if as_json:
        from fieldscope.service.viewer.comparison.rows import payload

        show_json(payload(comparison))
    else:
        _show(comparison, [file for file in (markdown, html) if file])


def _show(comparison: ScoredComparison, written: Sequence[Path]) -> None:
    from fieldscope.service.viewer.comparison import presentation

    show(f"{presentation.title(comparison)}.", "")
    nothing = presentation.nothing_table(comparison)
    show(_table(presentation.quality_table(comparison)), *([_table(nothing)] if nothing else []))
    show(_table(presentation.cost_table(comparison.runs, comparison)))
    show(*(_table(presentation.pairs_table(comparison, metric)) for metric in comparison.metrics))
    few = len(comparison.pairs) <= _LISTED
    if few and "supercategory" in comparison.pairs[0].groups:
        show(_table(presentation.groups_table(comparison, "supercategory")))
    for pair in comparison.pairs if few else ():
        lists = presentation.lists_of(comparison, pair, ("won", "lost"))
        for what, queries in lists.items():
            show(_table(presentation.queries_table(comparison, pair, queries[:_LISTED], f"the first of {what}")))
            show(f"to see why: {presentation.trace_command(pair, queries[0])}", "")
    show(presentation.EXPLAINED, "", *presentation.findings(comparison))
    if written:
        show(f"Written: {', '.join(map(str, written))}")
    else:
        show("--html FILE, --markdown FILE and --json show all queries and groups.")
    for sentence in comparison.notes:
        warn(sentence)


def _table(table: Table) -> rich.table.Table:
    from fieldscope.service.viewer.comparison.presentation import with_interval

    shown = [place for place, column in enumerate(table.columns) if column.kind in ("words", "numbers")]
    words = sum(table.columns[place].kind == "words" for place in shown)
    names = [table.columns[place].name for place in shown]
    rich_table = new_table(*names, texts=words, title=table.title, caption=table.note, narrow=True)
    for row in table.rows:
        rich_table.add_row(*(plain(with_interval(row[place])) for place in shown))
    return rich_table

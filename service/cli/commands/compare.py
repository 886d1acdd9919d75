"""`fieldscope compare`: runs against each other, over the same queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.options import json_option
from fieldscope.service.wiring.feedback import progress, warn

if TYPE_CHECKING:
    import rich.table

    from fieldscope.eval.measures.run_comparison import ScoredComparison
    from fieldscope.eval.runs.scored import ScoredRun
    from fieldscope.service.viewer.comparison.presentation import Table

_LISTED = 3
"""The number of queries listed as won, and as lost, by a pair; lists are left out where there are more pairs."""

_SERVED = re.compile(r"openai:(?P<model>.+?)(@.*)?#png(<=\d+)?(#.*)?")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric of metrics.json. Repeat for more; the first is the main one.  [default: AP@50, nDCG@50, MRR]",
)
@click.option(
    "--prices",
    "price_file",
    type=_file,
    metavar="FILE",
    help="Prices of tokens: YAML with input_per_million, output_per_million and currency, once for all models or below "
    "each model's name.",
)
@click.option("--markdown", type=_file, metavar="FILE", help="Write the report as Markdown.")
@click.option("--html", type=_file, metavar="FILE", help="Write the report as one HTML page with charts.")
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
    from fieldscope.eval.measures.run_comparison import METRICS, compare_runs
    from fieldscope.eval.runs.scored import names_of, read_scored, run_folders

    folders = run_folders(runs)
    if len(folders) < 2:
        raise ConfigError(f"{folders[0]} is the only run there. Name two or more different runs.")
    with progress("reading") as report:
        read: list[ScoredRun] = []
        for folder, name in zip(folders, names_of(folders), strict=True):
            read.append(read_scored(folder, name))
            report(len(read), len(folders))
    currency = None
    if price_file:
        read, currency = _priced(read, price_file)
    with progress("comparing") as report:
        comparison = compare_runs(read, tuple(dict.fromkeys(metrics)) or METRICS, currency, report)
    if markdown:
        from fieldscope.service.viewer.comparison.markdown import render_markdown

        _write(markdown, render_markdown(comparison))
    if html:
        from fieldscope.service.viewer.comparison.html import render_page

        _write(html, render_page(comparison))
    if as_json:
        from fieldscope.service.viewer.comparison.rows import payload

        show_json(payload(comparison))
    else:
        _show(comparison, [file for file in (markdown, html) if file])


def _priced(runs: Sequence[ScoredRun], file: Path) -> tuple[list[ScoredRun], str | None]:
    """The runs with the cost of their tokens, and the currency, None where no run has a model. A run without a model
    costs nothing."""
    from fieldscope.eval.prices import load_price

    prices = {run.lmm: load_price(file, _model_name(run.lmm)) for run in runs if run.lmm is not None}
    if len(currencies := sorted({price.currency for price in prices.values()})) > 1:
        raise ConfigError(
            f"{file}: the runs' prices are in {' and '.join(currencies)}. Give all of them in one currency."
        )
    priced = [
        replace(run, money=prices[run.lmm].of(run.spent.prompt_tokens, run.spent.completion_tokens) if run.lmm else 0.0)
        for run in runs
    ]
    return priced, currencies[0] if currencies else None


def _model_name(identity: str) -> str:
    """The name of a model in a price file: the name under which it is served, or `bundled`."""
    served = _SERVED.fullmatch(identity)
    return served["model"] if served else "bundled"


def _show(comparison: ScoredComparison, written: Sequence[Path]) -> None:
    from fieldscope.service.viewer.comparison import presentation

    show(f"{presentation.title(comparison)}.", "")
    show(_table(presentation.quality_table(comparison)), _table(presentation.cost_table(comparison.runs, comparison)))
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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    from fieldscope.service.viewer.comparison import presentation

    made = RichTable(title=plain(table.title), box=SIMPLE_HEAD, padding=0, pad_edge=False)
    made.title_justify = made.caption_justify = "left"
    made.caption = plain(table.note, "dim") if table.note else None
    shown = [place for place, column in enumerate(table.columns) if column.kind in ("words", "numbers")]
    for place in shown:
        column = table.columns[place]
        made.add_column(plain(column.name), justify="left" if column.kind == "words" else "right", overflow="fold")
    for row in table.rows:
        made.add_row(*(plain(presentation.with_interval(row[place])) for place in shown))
    return made


def _write(file: Path, text: str) -> None:
    """Write the whole file; after an error the old one is as it was."""
    partial = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ConfigError(f"can't write {file} ({error.strerror}). Choose another place.") from error

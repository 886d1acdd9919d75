"""`fieldscope leaderboard`: the user's runs and published ones in a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show_json
from fieldscope.service.cli.options import json_option, runs_argument

if TYPE_CHECKING:
    from fieldscope.eval.measures.leaderboard import Board, Row

EXPLAINED = (
    "AP and nDCG in percent, MRR from 0 to 1. AP@100, nDCG and MRR are over the best 100. Your own runs are bold."
)


@click.command()
@runs_argument
@json_option
def leaderboard(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print finished runs as Markdown tables, with published rankings of the same benchmark.

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. Every row names its source.
    AP@50 and AP over the whole list are different metrics and have separate tables. Rankings that were published on
    another benchmark, or over other queries or candidates, are in separate tables that say so.
    """
    from fieldscope.eval.measures.leaderboard import boards
    from fieldscope.service.workflows.compare import read_scored_runs

    tables = boards(read_scored_runs(runs))
    if as_json:
        show_json({"boards": [asdict(board) for board in tables]})
    else:
        click.echo("\n\n".join([*map(_markdown, tables), EXPLAINED]))


def _markdown(board: Board) -> str:
    from fieldscope.service.viewer.comparison.markdown import escape

    title = f"{board.benchmark} ({board.split}){', published' if board.foreign else ''}, {board.measure}"
    columns = _columns(board)
    head = ["", "ranking", *columns, "calls", "source"]
    lines = [_line(head), _line(["---:", ":---", *["---:"] * (len(columns) + 1), ":---"])]
    for place, row in enumerate(board.rows, start=1):
        name = escape(row.name) if row.published else f"**{escape(row.name)}**"
        cells = [cell(row) for cell in columns.values()]
        lines.append(_line([str(place), name, *cells, _calls(row), escape(row.source)]))
    notes = [f"Note: {escape(note)}." for note in board.notes]
    return "\n\n".join([f"### {escape(title)}", *notes, "\n".join(lines)])


def _columns(board: Board) -> dict[str, Callable[[Row], str]]:
    """What a board shows of a ranking: its measure, and beside AP@50 the supercategories that were published, beside AP
    over the whole list nDCG and MRR."""
    shown: Mapping[str, Callable[[Row], str]]
    if board.measure == "AP@50":
        groups = dict.fromkeys(group for row in board.rows if row.published for group in row.groups)
        shown = {group: partial(_group, group=group) for group in groups}
    else:
        shown = {
            "nDCG": lambda row: _percent(row.ndcg),
            "MRR": lambda row: "-" if row.mrr is None else f"{row.mrr:.2f}",
        }
    return {board.measure: lambda row: _percent(row.ap), **shown}


def _group(row: Row, group: str) -> str:
    return _percent(row.groups.get(group))


def _line(cells: Sequence[str]) -> str:
    return " ".join(["|", *(f"{cell} |".lstrip() for cell in cells)])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _calls(row: Row) -> str:
    return "-" if row.calls is None else f"{row.calls:,}"

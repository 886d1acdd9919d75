"""`fieldscope leaderboard`: the user's runs and published ones in a Markdown table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show_json
from fieldscope.service.cli.options import json_option, runs_argument

if TYPE_CHECKING:
    from fieldscope.eval.measures.leaderboard import Board, Row

EXPLAINED = "AP and nDCG in percent, over the best 100; MRR from 0 to 1. Your own runs are bold."


@click.command()
@runs_argument
@json_option
def leaderboard(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print finished runs as a Markdown table, with published rankings of the same benchmark.

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. Every row names its source.
    Rankings that were published on another benchmark, or over other queries or candidates, are in separate tables that
    say so.
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

    title = f"{board.benchmark} ({board.split}){', published' if board.foreign else ''}"
    lines = ["| | ranking | AP | nDCG | MRR | calls | source |", "| ---: | :--- | ---: | ---: | ---: | ---: | :--- |"]
    for place, row in enumerate(board.rows, start=1):
        name, source = escape(row.name), escape(row.source)
        figures = f"{100 * row.ap:.2f} | {100 * row.ndcg:.2f} | {row.mrr:.2f} | {_calls(row)}"
        lines.append(f"| {place} | {name if row.published else f'**{name}**'} | {figures} | {source} |")
    notes = [f"Note: {escape(note)}." for note in board.notes]
    return "\n\n".join([f"### {escape(title)}", *notes, "\n".join(lines)])


def _calls(row: Row) -> str:
    return "-" if row.calls is None else f"{row.calls:,}"

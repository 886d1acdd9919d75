"""`fieldscope leaderboard`: one's own runs and published ones as a Markdown table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.service.cli.console import show_json
from fieldscope.service.cli.options import json_option

if TYPE_CHECKING:
    from fieldscope.eval.measures.leaderboard import Board, Row

EXPLAINED = "AP and nDCG in percent, over the best 100; MRR from 0 to 1. Bold are one's own runs."


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))
@json_option
def leaderboard(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print finished runs as a Markdown table, with published rankings of the same benchmark.

    RUN is a run's folder, or the output folder of `fieldscope eval` for all runs in it. Every row names its source.
    What was published on another benchmark, or over other queries or candidates, stands in a table of its own, which
    says so.
    """
    from fieldscope.eval.measures.leaderboard import boards
    from fieldscope.eval.runs.scored import names_of, read_scored, run_folders

    folders = run_folders(runs)
    found = boards([read_scored(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)])
    if as_json:
        show_json({"boards": [asdict(board) for board in found]})
    else:
        click.echo("\n\n".join([*map(_markdown, found), EXPLAINED]))


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

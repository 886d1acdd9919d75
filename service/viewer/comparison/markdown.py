"""A comparison of runs as Markdown, in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fieldscope.eval.measures.run_comparison import ScoredComparison, ScoredPair
from fieldscope.service.viewer.comparison import presentation
from fieldscope.service.viewer.comparison.presentation import Cell, Column, Table, with_interval
from fieldscope.service.wiring.feedback import spelled

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&!$])")


def render_markdown(comparison: ScoredComparison) -> str:
    """The whole report: runs, pairs, groups, and for each pair the queries that were won, lost and tied."""
    nothing = presentation.nothing_table(comparison)
    tables = [
        presentation.quality_table(comparison),
        *([nothing] if nothing else []),
        presentation.cost_table(comparison.runs, comparison),
        *(presentation.pairs_table(comparison, metric) for metric in comparison.metrics),
        *(presentation.groups_table(comparison, kind) for kind in comparison.pairs[0].groups),
    ]
    blocks = [
        f"# {escape(presentation.title(comparison))}",
        _listed(presentation.findings(comparison)),
        *(block for table in tables for block in _table(table)),
        escape(presentation.EXPLAINED),
        *(block for pair in comparison.pairs for block in _queries(comparison, pair)),
    ]
    if comparison.notes:
        blocks += ["## Notes", _listed(comparison.notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """A text from elsewhere as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", spelled(" ".join(text.split())))


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def _queries(comparison: ScoredComparison, pair: ScoredPair) -> list[str]:
    lists = presentation.lists_of(comparison, pair).items()
    tables = [presentation.queries_table(comparison, pair, queries, what) for what, queries in lists]
    return [f"## {escape(presentation.versus(pair))}, query by query", *(b for table in tables for b in _table(table))]


def _table(table: Table) -> list[str]:
    """A heading, the table, and its note."""
    shown = [place for place, column in enumerate(table.columns) if column.kind != "drawn"]
    columns = [table.columns[place] for place in shown]
    lines = [
        _line([escape(column.name) for column in columns]),
        f"|{'|'.join(' ---: ' if column.kind == 'numbers' else ' :--- ' for column in columns)}|",
        *(_line([_cell(table.columns[place], row[place]) for place in shown]) for row in table.rows),
    ]
    return [f"### {escape(table.title)}", "\n".join(lines), escape(table.note)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, cell: Cell) -> str:
    return _code(cell.text) if column.kind == "code" else escape(with_interval(cell))


def _code(command: str) -> str:
    """A command in a cell, fenced by more backticks than it has; its bars are escaped, as tables need it."""
    fence = "`" * (max((len(run) for run in re.findall("`+", command)), default=0) + 1)
    padding = " " if "`" in command else ""
    return f"{fence}{padding}{command.replace('|', chr(92) + '|')}{padding}{fence}"

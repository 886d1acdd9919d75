"""A comparison of runs as Markdown, in GitHub's dialect."""

from __future__ import annotations

import re

from fieldscope.eval.measures.run_comparison import ScoredComparison, ScoredPair
from fieldscope.service.viewer.report import wording
from fieldscope.service.viewer.report.sheets import (
    EXPLAINED,
    Sheet,
    groups_sheet,
    pairs_sheet,
    queries_sheet,
    runs_sheet,
)
from fieldscope.service.wiring.feedback import spelled

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&!$])")


def render_markdown(found: ScoredComparison) -> str:
    """The whole report: runs, pairs, groups, and for each pair the queries that were won, tied and lost."""
    benchmark, split = found.runs[0].benchmark
    kinds = found.pairs[0].groups
    blocks = [
        f"# {escape(benchmark)} ({escape(split)}): {len(found.runs)} runs compared",
        "\n".join(f"- {escape(sentence)}" for sentence in wording.findings(found)),
        *_table(runs_sheet(found)),
        *(block for metric in found.metrics for block in _table(pairs_sheet(found, metric))),
        escape(EXPLAINED),
        *(block for kind in kinds for block in _table(groups_sheet(found, kind))),
        *(block for pair in found.pairs for block in _queries(found, pair)),
    ]
    if found.notes:
        blocks += ["## Notes", "\n".join(f"- {escape(note)}" for note in found.notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """Somebody else's words as Markdown that shows them as they are, on one line."""
    return _SPECIAL.sub(r"\\\1", spelled(" ".join(text.split())))


def _queries(found: ScoredComparison, pair: ScoredPair) -> list[str]:
    blocks = [f"## {escape(pair.b.name)} against {escape(pair.a.name)}, query by query"]
    main = found.main
    for title, queries in (("won", pair.won(main)), ("lost", pair.lost(main)), ("tied", pair.tied(main))):
        if queries:
            sheet = queries_sheet(found, pair, queries, f"{len(queries)} {title} in {main}")
            blocks += _table(sheet, tuple(wording.trace_command(pair, query) for query in queries))
    return blocks


def _table(sheet: Sheet, commands: tuple[str, ...] = ()) -> list[str]:
    """A heading, the table, and what explains it. `commands` make a last column of code."""
    columns = (*sheet.columns, *(["trace"] if commands else []))
    sides = [
        " :--- " if place < sheet.texts or place == len(sheet.columns) else " ---: " for place in range(len(columns))
    ]
    rows = [[escape(cell) for cell in row] for row in sheet.rows]
    for row, command in zip(rows, commands, strict=False):
        row.append(_code(command))
    lines = [_line([escape(column) for column in columns]), f"|{'|'.join(sides)}|", *map(_line, rows)]
    return [f"### {escape(sheet.title)}", "\n".join(lines), escape(sheet.below)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(command: str) -> str:
    """A command in a cell: fenced by more backticks than it has, its bars escaped as tables want them."""
    fence = "`" * (max((len(run) for run in re.findall("`+", command)), default=0) + 1)
    padding = " " if "`" in command else ""
    return f"{fence}{padding}{command.replace('|', chr(92) + '|')}{padding}{fence}"

"""Why one image stands above another, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType

from fieldscope.agent.trace_above import Above, Contrast
from fieldscope.agent.types import RerankResult, Verdict
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.cli.tables.trace import columns, comparisons_table
from fieldscope.service.cli.tables.trace_parts import heading, line, number
from fieldscope.service.workflows.ranking import answer_of


def render_above(result: RerankResult, found: Above) -> RenderableType:
    """One sentence, and below it each part of the two scores."""
    return Group(*_everything(result, found))


def _everything(result: RerankResult, found: Above) -> Iterator[RenderableType]:
    yield plain(found.sentence, "bold")
    yield line("query", f"{result.query_text}  (id {result.query_id})")
    for ranked in (found.upper, found.lower):
        known = f"score {ranked.score:.6g}, prior {ranked.prior:.6g}, P(match) {number(ranked.p_match, 4)}"
        yield line(f"rank {ranked.rank}", f"{ranked.image_id}  ({known})")
    sums = "which sum to the difference of the scores" if found.exact else "of P(expected)"
    yield heading(f"log-odds, {sums}")
    table = new_table(edge=False)
    table.add_column("ahead", justify="right", no_wrap=True)
    table.add_column("of")
    table.add_column("question", overflow="fold")
    for ranked in (found.upper, found.lower):
        table.add_column(f"rank {ranked.rank}", justify="right", no_wrap=True)
        table.add_column("said", overflow="fold")
    short = columns(result.predicates)
    for each in found.contrasts:
        table.add_row(*map(plain, _cells(each, short.get(each.source, each.source))))
    yield table
    if found.matchups:
        yield heading("compared with each other")
        yield comparisons_table(found.matchups)


def _cells(each: Contrast, name: str) -> Iterator[str]:
    yield _odds(each.ahead)
    yield name
    yield each.predicate.question if each.predicate else ""
    for log_odds, verdict in ((each.upper, each.upper_verdict), (each.lower, each.lower_verdict)):
        yield _odds(log_odds)
        yield _said(verdict)


def _odds(log_odds: float | None) -> str:
    return "-" if log_odds is None else f"{log_odds:+.2f}"


def _said(verdict: Verdict | None) -> str:
    return "" if verdict is None else f"{answer_of(verdict)} {number(verdict.p_expected)}".strip()

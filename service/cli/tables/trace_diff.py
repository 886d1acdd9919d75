"""Two runs of one query, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from fieldscope.agent.trace_diff import Diff, Image, Said, Side
from fieldscope.agent.types import Predicate, RankedCandidate
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.ranking import moved_by
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.cli.tables.trace import SHOWN, verdict_cell
from fieldscope.service.cli.tables.trace_parts import heading, line, number

_PREDICATES_SHOWN = 4  # predicates that are shown of an image


def render_diff(difference: Diff, limit: int | None = SHOWN) -> RenderableType:
    """What is different in B. Of the rankings the first `limit` ranks are shown, all where None."""
    return Group(*_everything(difference, limit))


def _everything(difference: Diff, limit: int | None) -> Iterator[RenderableType]:
    yield line("query", f"{difference.query_text}  (id {difference.query_id})")
    yield _sides(difference)
    yield heading("predicates")
    for name, predicates in (("both", difference.common), ("only A", difference.only_a), ("only B", difference.only_b)):
        first, *others = [_question(predicate) for predicate in predicates] or ["none"]
        yield line(name, first)
        yield from (line("", question) for question in others)
    yield heading("rankings; moved says how B has its image against A")
    yield from _rankings(difference.images, limit)
    if not difference.disagreements:
        yield line("", "no image changes its rank")
        return
    yield heading("where they disagree most, with P(expected) in percent (? unknown, · not asked)")
    yield _disagreements(difference.disagreements)


def _sides(difference: Diff) -> RenderableType:
    table = new_table("", "A", "B", texts=3, edge=False)
    names = ("strategy", "model", "calls", "ended", "matches", "warnings")
    for name, a, b in zip(names, _side(difference.a), _side(difference.b), strict=True):
        table.add_row(*map(plain, (name, a, b)))
    for name, (of_a, of_b) in difference.prompts.items():
        table.add_row(*map(plain, (f"prompt {name}", _short(of_a), "the same" if of_a == of_b else _short(of_b))))
    return table


def _side(side: Side) -> tuple[str, ...]:
    return (
        f"{side.strategy} ({_short(side.strategy_fingerprint)})",
        _short(side.model),
        f"{side.calls} ({side.tokens} tokens)",
        f"the budget ran out in the stage {side.ended}" if side.ended else "finished",
        side.nothing or "-",
        "; ".join(side.flags) or "-",
    )


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "-"


def _question(asked: Predicate | Said) -> str:
    return asked.question if asked.expected == "yes" else f"{asked.question} (expected no)"


def _rankings(images: Sequence[Image], limit: int | None) -> Iterator[RenderableType]:
    by_a = {image.a.rank: image for image in images if image.a}
    by_b = {image.b.rank: image for image in images if image.b}
    ranks = sorted({*by_a, *by_b})
    table = new_table(edge=False)
    table.add_column("rank", justify="right")
    for name in ("A", "B"):
        table.add_column("P(match)", justify="right")
        table.add_column(name, overflow="fold")
    table.add_column("moved", justify="right")
    for rank in ranks[:limit]:
        a, b = by_a.get(rank), by_b.get(rank)
        moved = "" if b is None else "only B" if b.moved is None else moved_by(b.moved)
        table.add_row(str(rank), *_cells(a.a if a else None), *_cells(b.b if b else None), moved)
    yield table
    if left := len(ranks) - len(ranks[:limit]):
        yield line("", f"{left} more ranks; --all shows them", "dim")


def _cells(ranked: RankedCandidate | None) -> tuple[RenderableType, RenderableType]:
    return (number(ranked.p_match), plain(ranked.image_id)) if ranked else ("", "")


def _disagreements(images: Sequence[Image]) -> RenderableType:
    table = new_table(edge=False)
    for name in ("image", "question"):
        table.add_column(name, overflow="fold")
    for name in ("A", "B"):
        table.add_column(name, justify="right", no_wrap=True)
    for image in images:
        ranks = [f"rank {ranked.rank}" if ranked else "missing" for ranked in (image.a, image.b)]
        table.add_row(plain(image.image_id, "bold"), "", *ranks)
        for said in image.said[:_PREDICATES_SHOWN]:
            table.add_row("", plain(_question(said)), verdict_cell(said.a), verdict_cell(said.b))
    return table

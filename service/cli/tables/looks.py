"""Closer looks at images, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from fieldscope.agent.trace_why import Why
from fieldscope.agent.types import RerankResult, Verdict
from fieldscope.core.looks import Look
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.cli.tables.trace_parts import heading, number
from fieldscope.service.workflows.ranking import answer_of


def look_text(look: Look) -> str:
    """What a look shows, in words: a region by its size and place in percent of the picture."""
    enhanced = "enhanced" if look.enhance else ""
    if look.region is None:
        return f"the whole picture, {enhanced}"
    sides = (look.region.width, look.region.height, look.region.left, look.region.top)
    width, height, left, top = (f"{100 * side:.0f}" for side in sides)
    return ", ".join(filter(None, (f"{width} x {height} % at {left}, {top} %", enhanced)))


def looks_at(explanation: Why) -> Iterator[RenderableType]:
    """What each look at one image showed, and what was said of it."""
    if not explanation.looks:
        return
    table = new_table(edge=False)
    table.add_column("shown", overflow="fold")
    table.add_column("question", overflow="fold")
    for name in ("answer", "P(expected)"):
        table.add_column(name, justify="right", overflow="fold")
    for taken in explanation.looks:
        cells = [look_text(taken.look), taken.question, answer_of(taken.verdict), number(taken.verdict.p_expected)]
        table.add_row(*map(plain, cells))
    yield heading("closer looks")
    yield table


def looks_of(result: RerankResult, limit: int | None) -> Iterator[RenderableType]:
    """The images at which closer looks were taken, best first, and by how much the looks changed each score."""
    taken: dict[str, list[Verdict]] = {}
    for verdict in result.verdicts:
        if verdict.look is not None:
            taken.setdefault(verdict.image_id, []).append(verdict)
    images = [ranked for ranked in result.ranking if ranked.image_id in taken]
    if not images:
        return
    table = new_table(edge=False)
    for name in ("rank", "changed by"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("looks, with P(expected) in percent", overflow="fold")
    table.add_column("image", overflow="fold")
    for ranked in images[:limit]:
        changed = ranked.contributions.get("looks")
        shown = "; ".join(f"{look_text(v.look)}: {_percent(v)}" for v in taken[ranked.image_id] if v.look is not None)
        cells = (str(ranked.rank), "-" if changed is None else f"{changed:+.2f}", shown, ranked.image_id)
        table.add_row(*map(plain, cells))
    yield heading("closer looks, with the log-odds by which they changed the score")
    yield table
    if limit is not None and len(images) > limit:
        yield plain(f"closer looks at {len(images) - limit} more images; --all shows them", "dim")


def _percent(verdict: Verdict) -> str:
    if verdict.p_expected is None:
        return "?" if verdict.state == "unknown" else "·"
    return f"{100 * verdict.p_expected:.0f}"

"""A ranking in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fieldscope.agent.trace_view import RELATIVE, named_document
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.workflows.ranking import answer_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from fieldscope.service.workflows.promise import KeptImages
    from fieldscope.service.workflows.ranking import Ranking


def ranking_table(ranking: Ranking, top: int | None = None, *, opened: bool = False) -> Table:
    """The `top` images, best first; all where None. Near duplicates and bursts are one line, that of the best, unless
    they are `opened`."""
    result = ranking.result
    judged = bool(result.predicates or result.comparisons)
    several = len(result.predicates) > 1
    columns = ("rank", "moved", "P(match)", "prior") if judged else ("rank", "prior")
    table = new_table(*columns, texts=0, caption=RELATIVE if judged and result.relative else "")
    if ranking.kept is not None:
        table.add_column("kept")
    table.add_column("image", overflow="fold")
    firsts = result.ranking if opened else ranking.firsts()
    grouped = len(firsts) < len(result.ranking)
    if grouped:
        table.add_column("alike", justify="right")
    if several:
        table.add_column("unknown", justify="right")
        table.add_column("weakest", overflow="fold")
    elif result.predicates:
        table.add_column("answer", overflow="fold")
    for ranked in firsts[:top]:
        cells: list[str | Text] = [str(ranked.rank), f"{ranked.prior:.3f}"]
        if judged:
            p_match = "-" if ranked.p_match is None else f"{ranked.p_match:.3f}"
            cells[1:1] = [moved_by(ranked.prior_rank - ranked.rank), p_match]
        if ranking.kept is not None:
            cells.append("yes" if ranked.image_id in ranking.kept.images else plain("no", "dim"))
        cells.append(plain(named_document(ranked)))
        if grouped:
            more = len(ranking.alike(ranked.image_id)) - 1
            cells.append(f"+{more}" if more else "")
        if several:
            unknown = ranking.unknown(ranked.image_id)
            cells.append(plain(str(unknown), "yellow" if unknown else "dim"))
        if result.predicates:
            cells.append(_weakest(ranking, ranked.image_id))
        table.add_row(*cells)
    return table


def kept_lines(kept: KeptImages | None) -> Iterator[RenderableType]:
    """What a promised precision keeps, and the promise; nothing where none was asked for."""
    if kept is not None:
        yield f"{kept.summary} {kept.promise}"
        yield from (plain(caveat, "yellow") for caveat in kept.caveats)


def moved_by(ranks: int) -> str:
    """How many ranks something rose, or fell where negative."""
    return f"↑{ranks}" if ranks > 0 else f"↓{-ranks}" if ranks < 0 else "="


def _weakest(ranking: Ranking, image_id: str) -> Text:
    """What counts most against an image; of a single question only the answer."""
    verdict = ranking.weakest(image_id)
    if verdict is None or verdict.p_expected is None:
        return plain(answer_of(verdict), "yellow")
    if len(ranking.result.predicates) == 1:
        return plain(answer_of(verdict))
    return plain(f"{verdict.p_expected:.2f} {ranking.question(verdict)}")

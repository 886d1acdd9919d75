"""What moves between the rankings of the same queries, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.table import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.eval.measures.paired import Mean
    from fieldscope.eval.measures.steadiness import Share
    from fieldscope.service.workflows.steadiness import SteadinessStudy

_WIDEST = 5
"""The number of queries that are listed."""


def steadiness_tables(study: SteadinessStudy, what: str) -> list[Table]:
    """What moves, with 95 % intervals over queries, and the queries whose metric changes most. `what` are the rankings
    of a query: draws or wordings. Within 100 columns."""
    found = study.found
    title = f"{study.strategy} on {study.benchmark} ({study.split}): {found.queries} queries, {found.rankings} {what}"
    table = new_table(f"against the first of the {what}", "", "95 % interval", title=title)
    if found.flips is not None:
        table.add_row(f"verdicts that change sides, of {found.flips.of:,}", *_share(found.flips))
    table.add_row("another image in first place", *_share(found.first_place))
    table.add_row("another image in one of the first ten places", *_share(found.places))
    table.add_row("the ten best: no longer among the ten best", *_share(found.left))
    table.add_row("the ten best: change of rank", *_mean(found.moved, 1, ""))
    if (spread := found.spread) is not None:
        metric = study.metric
        table.add_row(f"{metric}, best less worst of a query: mean", *_mean(spread.mean, 100, " points"))
        if spread.worst > 0:
            worst = f"{metric}, best less worst: query {spread.worst_query}"
            table.add_row(worst, f"{100 * spread.worst:.1f} points", "")
        table.add_row(f"m{metric} of the first", f"{100 * spread.first:.1f} %", "")
        table.add_row(f"m{metric} of each query's worst", f"{100 * spread.lowest:.1f} %", "")
    return [table, *([_queries(study)] if study.widest else [])]


def _queries(study: SteadinessStudy) -> Table:
    """The queries with the widest spread: the texts of their best and worst ranking."""
    title = f"queries whose {study.metric} changes most, percent"
    table = new_table("query", "worst", "best", "", texts=0, title=title)
    table.columns[-1].justify = "left"
    for query_id in study.widest[:_WIDEST]:
        values, texts = study.repeated[query_id].values, study.texts[query_id]
        worst, best = values.index(min(values)), values.index(max(values))
        said = texts[worst] if texts[worst] == texts[best] else f"{texts[worst]} | {texts[best]}"
        table.add_row(plain(query_id), f"{100 * values[worst]:.1f}", f"{100 * values[best]:.1f}", plain(said))
    return table


def _share(share: Share) -> tuple[str, str]:
    return f"{100 * share.value:.1f} %", f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def _mean(mean: Mean, scale: float, unit: str) -> tuple[str, str]:
    return f"{scale * mean.value:.1f}{unit}", f"{scale * mean.low:.1f} to {scale * mean.high:.1f}"

"""The tables of a comparison of runs, as texts: the terminal and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.run_comparison import ScoredComparison, ScoredPair, per_query
from fieldscope.service.viewer.report import wording


@dataclass(frozen=True)
class Sheet:
    """A table. The first `texts` columns are texts, the others numbers; `below` explains it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    below: str = ""


def runs_sheet(found: ScoredComparison) -> Sheet:
    """Each run's means, in percent, beside what it spent."""
    benchmark, split = found.runs[0].benchmark
    best = found.fronts[found.main_cost]
    money = (found.currency,) if found.currency else ()
    rows = tuple(
        (
            run.name,
            *(wording.percent(run.mean(per_query(metric))) for metric in found.metrics),
            f"{run.spent.calls:,}",
            f"{run.spent.tokens:,}",
            f"{run.spent.seconds:,.0f}",
            *([wording.amount(run.money or 0.0)] if money else []),
            "●" if run.name in best else "",
        )
        for run in found.runs
    )
    return Sheet(
        f"{benchmark} ({split}), {found.queries} queries, percent",
        ("run", *found.metrics, "calls", "tokens", "seconds", *money, "front"),
        rows,
        texts=1,
        below=f"● no other run has as much {found.main} for {'less money' if money else 'fewer tokens'}",
    )


def pairs_sheet(found: ScoredComparison, metric: str) -> Sheet:
    """What every B changes against A in one metric."""
    rows = tuple(
        (
            pair.a.name,
            pair.b.name,
            wording.points((effect := pair.effects[metric]).test.difference),
            wording.interval(effect.test),
            wording.p_value(effect.test.p),
            wording.p_holm(effect),
            wording.score(effect.test),
            wording.detectable(effect),
        )
        for pair in found.pairs
    )
    columns = ("A", "B", "B - A", "95 % interval", "p", "Holm", "w/t/l", "detects")
    return Sheet(f"{metric}: B against A, points", columns, rows, texts=2)


def groups_sheet(found: ScoredComparison, kind: str) -> Sheet:
    """What every B changes against A in the main metric, by group of one kind."""
    rows = tuple(
        (
            pair.a.name,
            pair.b.name,
            group,
            str((effect := effects[found.main]).test.queries),
            wording.points(effect.test.difference),
            wording.interval(effect.test),
            wording.p_holm(effect),
            wording.score(effect.test),
        )
        for pair in found.pairs
        for group, effects in pair.groups[kind].items()
    )
    name = wording.kind_name(kind)
    columns = ("A", "B", name, "of", "B - A", "95 % interval", "Holm", "w/t/l")
    return Sheet(f"{found.main} by {name}: B against A, points", columns, rows, texts=3)


def queries_sheet(found: ScoredComparison, pair: ScoredPair, queries: Sequence[str], title: str) -> Sheet:
    """Single queries in the main metric, in percent, and what to type to see why."""
    metric = per_query(found.main)
    rows = tuple(
        (
            query,
            pair.a.text(query),
            wording.percent(pair.a.values[query][metric]),
            wording.percent(pair.b.values[query][metric]),
            wording.points(pair.differences[found.main][query]),
        )
        for query in queries
    )
    return Sheet(title, ("query", "", pair.a.name, pair.b.name, "B - A"), rows, texts=2)


EXPLAINED = (
    "Differences are means over queries, with bootstrap intervals; p is that of a two-sided paired randomisation test, "
    "Holm the same adjusted for all pairs, of groups for all groups of a kind within a pair, with a * for a finding at "
    "5 %. w/t/l counts the queries won, tied and lost. The test detects a true difference of so many points, or more, "
    "with a chance of 80 %. Seconds are those that the answers took, summed over calls."
)

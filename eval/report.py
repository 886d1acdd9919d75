"""What an evaluation prints: a table for people, one object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fieldscope.eval.conclusion import cost_entry
from fieldscope.eval.measures.scoring import FIRST_STAGE_RECALL, HEADLINE
from fieldscope.eval.types import Means, RunSummary

_OVERVIEW = ("mAP@50", "nDCG@10", "MRR")
_ROUNDS = {"hits@10": "found so far", "recall@10": "of each round alone"}


def payload(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The runs of one benchmark as one JSON-able object. Metrics are fractions between 0 and 1, or None where no
    query could be scored; full retrieval adds the first stage's recall. `unknown` counts the calls that failed,
    `ended` the queries on which a budget ended the work, by stage, `scored_on_test` the runs in which the strategy was
    scored on test; dialogues add `by_round`."""
    return {
        "benchmark": summaries[0].benchmark,
        "split": summaries[0].split,
        "runs": [
            {
                "strategy": summary.strategy,
                "metrics": dict(summary.metrics),
                "by_supercategory": {group: dict(means) for group, means in summary.by_supercategory.items()},
                **_breakdowns(summary),
                **_by_round(summary),
                "cost": cost_entry(summary.cost),
                "unknown": summary.unknown,
                "ended": dict(summary.ended),
                "scored_on_test": summary.scored_on_test,
                "out": str(summary.out),
            }
            for summary in summaries
        ],
    }


def tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """The tables of one benchmark's runs, within 80 columns."""
    groups = [group_table(summaries)] if summaries[0].by_supercategory else []
    tasks = [task_table(summaries)] if _task_metrics(summaries[0]) else []
    rounds = [round_table(summaries, metric) for metric in _ROUNDS] if summaries[0].by_round else []
    return [overview_table(summaries), quality_table(summaries), *tasks, *rounds, *groups, cost_table(summaries)]


def overview_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by what they gained and what that took: metrics in percent, with their differences in points to the first
    run; calls, tokens read and written, and seconds."""
    first = summaries[0]
    base = {name: first.metrics[name] for name in _OVERVIEW if name in first.metrics}
    table = _table(f"{first.benchmark} ({first.split}): quality and cost", [*base, "calls", "tokens", "seconds"])
    for summary in summaries:
        cost = summary.cost
        tokens = _in_short(cost.tokens)
        spent = (f"{cost.calls:,}", tokens, f"{cost.wall:,.0f}")
        table.add_row(summary.strategy, *_cells(summary.metrics, base, compare=summary is not first), *spent)
    return table


def quality_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by metrics, in percent, each with its difference in points to the first run; below it, for full retrieval,
    what the first stage found."""
    first = summaries[0]
    base = {name: first.metrics[name] for name in HEADLINE if name != "nDCG@10"}  # the overview's; they fill the width
    of = f"{first.scored} {'query' if first.scored == 1 else 'queries'}"
    table = _table(f"{first.benchmark} ({first.split}), {of}, percent", list(base))
    for summary in summaries:
        table.add_row(summary.strategy, *_cells(summary.metrics, base, compare=summary is not first))
    if (recall := first.metrics.get(FIRST_STAGE_RECALL)) is not None:
        table.caption = f"{FIRST_STAGE_RECALL}: {100 * recall:.1f}"
    return table


def _in_short(count: int) -> str:
    """A count in at most six characters: 9,999, 17.6k, 5.3M."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def group_table(summaries: Sequence[RunSummary], metric: str = "mAP@50") -> Table:
    """Runs by supercategory in one metric, in percent, each with its difference in points to the first run."""
    first = summaries[0]
    table = _table(f"{metric} by supercategory, percent", first.by_supercategory)
    base = {group: means[metric] for group, means in first.by_supercategory.items()}
    for summary in summaries:
        own = {group: means[metric] for group, means in summary.by_supercategory.items()}
        table.add_row(summary.strategy, *_cells(own, base, compare=summary is not first))
    return table


def task_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by the metrics of composed queries and of dialogues, in percent."""
    names = _task_metrics(summaries[0])
    table = _table("by the task's own metrics, percent", names)
    for summary in summaries:
        table.add_row(summary.strategy, *(_cell(summary.metrics.get(name), None) for name in names))
    return table


def round_table(summaries: Sequence[RunSummary], metric: str) -> Table:
    """Runs by the number of rounds of a dialogue, in one of the metrics of dialogues, in percent."""
    rounds = summaries[0].by_round
    table = _table(f"{metric} by round ({_ROUNDS[metric]}), percent", map(str, rounds))
    for summary in summaries:
        table.add_row(summary.strategy, *(_cell(summary.by_round[done].get(metric), None) for done in rounds))
    return table


def cost_table(summaries: Sequence[RunSummary]) -> Table:
    """What the runs cost; `unknown` counts calls that failed."""
    table = _table("cost", ["calls", "tokens in", "tokens out", "cached", "unknown", "seconds"])
    for summary in summaries:
        cost = summary.cost
        counts = (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.cached, summary.unknown)
        table.add_row(summary.strategy, *(f"{count:,}" for count in counts), f"{cost.wall:,.1f}")
    return table


def warnings(summaries: Sequence[RunSummary], failed: Sequence[RunSummary] = ()) -> list[str]:
    """One line for each thing that a reader of the table must know; runs that
    `failed` are left out, since an error reports them."""
    lines = [
        f"{unanswered(summary)}. The affected images keep their first-stage position. The errors are in "
        f"{summary.out / 'results.jsonl'}; rerun this command to ask again."
        for summary in summaries
        if summary.unknown and summary not in failed
    ]
    lines += [_ended(summary) for summary in summaries if summary.ended]
    first = summaries[0]
    if left_out := first.queries - first.scored:
        lines.append(f"{left_out} of {first.queries} queries have nothing relevant to find; the means leave them out")
    return lines + sorted({flag for summary in summaries for flag in summary.flags})


def unanswered(summary: RunSummary) -> str:
    """How many of a run's calls failed."""
    return (
        f"{summary.strategy}: {summary.unknown:,} of {summary.asked:,} calls failed "
        f"({100 * summary.unknown_share:.1f} %)"
    )


def _breakdowns(summary: RunSummary) -> dict[str, Any]:
    found = {kind: {g: dict(means) for g, means in groups.items()} for kind, groups in summary.breakdowns.items()}
    return {"breakdowns": found} if found else {}


def _by_round(summary: RunSummary) -> dict[str, Any]:
    rounds = {str(done): dict(means) for done, means in summary.by_round.items()}
    return {"by_round": rounds} if rounds else {}


def _task_metrics(summary: RunSummary) -> list[str]:
    return [name for name in summary.metrics if name not in (*HEADLINE, *_OVERVIEW, FIRST_STAGE_RECALL)]


def _ended(summary: RunSummary) -> str:
    stages = ", ".join(f"{stage} {queries:,}" for stage, queries in summary.ended.items())
    return (
        f"{summary.strategy}: a budget ended the work on {sum(summary.ended.values()):,} of {summary.queries:,} "
        f"queries ({stages})"
    )


def _table(title: str, columns: Iterable[str]) -> Table:
    """A plain table. Titles and headings may come from a data set, and are no markup."""
    table = Table(title=Text(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("strategy", no_wrap=True)
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def _cells(own: Means, base: Means, *, compare: bool) -> list[str]:
    """A cell for each value that `base` names: in percent, with its difference in points where they are compared."""
    return [_cell(own.get(name), reference if compare else None) for name, reference in base.items()]


def _cell(value: float | None, reference: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" {100 * (value - reference):+.1f}" if reference is not None else "")

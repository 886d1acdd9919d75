"""The runs of an evaluation in a terminal: quality, cost, groups and rounds, and a grid's runs best first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fieldscope.agent.roles import role_identity
from fieldscope.agent.usage import SCORER
from fieldscope.eval.measures.certainty import certainties
from fieldscope.eval.measures.protocols import BRI
from fieldscope.eval.measures.scoring import FIRST_STAGE_RECALL, HEADLINE
from fieldscope.eval.reported import RIGHTLY, WRONGLY
from fieldscope.eval.types import Means, RunSummary
from fieldscope.service.cli.console import plain, show, show_json
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.wiring.feedback import program, warn
from fieldscope.service.workflows.compare import model_name

if TYPE_CHECKING:
    from rich.table import Table

    from fieldscope.agent.roles import Role
    from fieldscope.eval.measures.run_comparison import Effect
    from fieldscope.eval.tuning.grid import Member
    from fieldscope.service.workflows.evaluate import EvaluatedRuns

_ROUNDS = {"hits@10": "found so far", "recall@10": "of each round alone"}

EXPLAINED = (
    "p: paired randomisation test after Holm, * below 0.05. detectable: the true difference that so many queries show "
    "with a chance of 80 %. queries needed: how many show this one with that chance."
)
_KINDS = ("category", "iconic_group", "lingo", "scientific_name")
"""INQUIRE's kinds of group, which `metrics.json` has."""

_HASH = re.compile(r"[0-9a-f]{16,}")


def show_evaluation(
    evaluation: EvaluatedRuns, max_unknown: float, as_json: bool, grid: Path | None, members: Sequence[Member]
) -> None:
    """Print an evaluation or, with the `grid` file that its `members` come from, a sweep; and what makes its runs worth
    less. Of the runs in which more calls failed than the share `max_unknown` the command's error tells."""
    from fieldscope.eval.report import payload, warnings
    from fieldscope.eval.runs.ledger import scored_notes
    from fieldscope.service.workflows import sweep

    runs, flags = evaluation.runs, evaluation.flags
    if as_json:
        data = payload(runs) if grid is None else sweep.payload(members, runs, grid)
        show_json(data | ({"flags": list(flags)} if flags else {}))
    else:
        example = runs[-1] if grid is None else runs[0]
        shown = tables(runs) if grid is None else [sweep_table(runs)]
        show(*shown, *scored_notes(runs), _where(evaluation.out, example))
    failed = [summary for summary in runs if summary.unknown_share > max_unknown]
    for line in warnings(runs, failed=failed):
        if line not in flags:
            warn(line)


def show_runs(runs: Sequence[RunSummary], out: Path, as_json: bool) -> None:
    """Print runs, and what makes them worth less."""
    from fieldscope.eval.report import payload, warnings

    if as_json:
        show_json(payload(runs))
    else:
        show(*tables(runs), _where(out, runs[-1]))
    for line in warnings(runs):
        warn(line)


def _where(out: Path, example: RunSummary) -> str:
    return f"Runs are in {out}; to read one: {program()} trace {example.out} QUERY"


def tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """Everything a person wants to see of the runs of one benchmark, within 80 columns. Where no query has a match, the
    metrics of relevance are undefined and are left out."""
    roles = [role_table(summaries)] if any(summary.by_role for summary in summaries) else []
    matched = summaries[0].scored > 0
    quality = [quality_table(summaries)] if matched else []
    groups = [group_table(summaries)] if matched and summaries[0].by_supercategory else []
    groups += own_group_tables(summaries)
    tasks = [task_table(summaries)] if _task_metrics(summaries[0]) else []
    rounds = [round_table(summaries, metric) for metric in _ROUNDS] if summaries[0].by_round else []
    decided = any(summary.metrics.get(name) is not None for summary in summaries for name in (RIGHTLY, WRONGLY))
    nothing = [nothing_table(summaries)] if decided else []
    return [
        overview_table(summaries),
        *quality,
        *certainty_tables(summaries),
        *tasks,
        *rounds,
        *groups,
        *nothing,
        cost_table(summaries),
        *roles,
    ]


def overview_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by what they gained and what that took: metrics in percent, with their differences in points to the first
    run; calls, tokens read and written, and seconds. Below it, whose the first-stage scores are."""
    first = summaries[0]
    base = {name: first.metrics[name] for name in first.reported.overview} if first.scored else {}
    what = "quality and cost" if base else "cost"
    table = _table(f"{first.benchmark} ({first.split}): {what}", [*base, "calls", "tokens", "seconds"])
    for summary in summaries:
        cost = summary.cost
        tokens = _in_short(cost.prompt_tokens + cost.completion_tokens)
        spent = (f"{cost.calls:,}", tokens, f"{cost.wall:,.0f}")
        table.add_row(summary.strategy, *_cells(summary.metrics, base, compare=summary is not first), *spent)
    if prior := prior_line(summaries):
        table.caption = plain(prior, "dim")
    return table


def prior_line(summaries: Sequence[RunSummary]) -> str:
    """Whose the first-stage scores of the runs are, each named once; empty where no benchmark says."""
    priors = dict.fromkeys(summary.prior for summary in summaries if summary.prior)
    return f"{'prior' if len(priors) == 1 else 'priors'}: {', '.join(priors)}" if priors else ""


def quality_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by the metrics in which the benchmark's results are reported, in percent, each with its difference in points
    to the first run; below it, for full retrieval, what the first stage found."""
    first = summaries[0]
    base = {name: first.metrics[name] for name in first.reported.means}
    of = f"{first.scored} {'query' if first.scored == 1 else 'queries'}"
    table = _table(f"{first.benchmark} ({first.split}), {of}, percent", list(base))
    for summary in summaries:
        table.add_row(summary.strategy, *_cells(summary.metrics, base, compare=summary is not first))
    if recall := _recall_line(summaries):
        table.caption = plain(recall, "dim")
    return table


def certainty_tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """The means with their 95 % intervals, in percent, and what each run changes against the first in the headline, in
    points: whether that is more than chance, and how many queries a test needs for it. Nothing where fewer than two
    queries could be scored."""
    sure = certainties(summaries)
    if not sure[0].means:
        return []
    means = _table("95 % intervals over queries, percent", sure[0].means)
    for summary, own in zip(summaries, sure, strict=True):
        cells = (f"{100 * m.value:.1f} [{100 * m.low:.1f}, {100 * m.high:.1f}]" for m in own.means.values())
        means.add_row(plain(summary.strategy), *cells)
    if not any(own.effect for own in sure):
        return [means]
    first = summaries[0]
    columns = ("difference", "95 % interval", "p", "detectable", "queries needed")
    gains = _table(f"{first.reported.mean} against {first.strategy}, points", columns)
    for summary, own in zip(summaries, sure, strict=True):
        if own.effect is not None:
            gains.add_row(plain(summary.strategy), *_effect_cells(own.effect))
    gains.caption = plain(EXPLAINED, "dim")
    return [means, gains]


def _effect_cells(effect: Effect) -> tuple[str, ...]:
    test, detectable = effect.test, effect.detectable
    p = "< 0.001" if effect.p_holm < 0.001 else f"{effect.p_holm:.3f}"
    return (
        f"{100 * test.difference:+.1f}",
        f"{100 * test.low:+.1f} to {100 * test.high:+.1f}",
        p + ("*" if effect.significant else ""),
        "-" if detectable is None else f"{100 * detectable:.1f}",
        "-" if effect.needed is None else f"{effect.needed:,}",
    )


def _recall_line(summaries: Sequence[RunSummary]) -> str:
    """What the first stage found of full retrieval, or each of several first stages; empty for given candidates."""
    recalls: dict[str, float] = {}
    for summary in summaries:
        if (recall := summary.metrics.get(FIRST_STAGE_RECALL)) is not None:
            recalls.setdefault(summary.prior, recall)
    if len(recalls) < 2:
        return "".join(f"{FIRST_STAGE_RECALL}: {100 * recall:.1f}" for recall in recalls.values())
    return f"{FIRST_STAGE_RECALL}: {', '.join(f'{prior} {100 * recall:.1f}' for prior, recall in recalls.items())}"


def _in_short(count: int) -> str:
    """A count in at most six characters: 9,999, 17.6k, 5.3M."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def group_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by supercategory in the benchmark's headline, in percent, each with its difference in points to the first
    run."""
    first = summaries[0]
    metric = first.reported.mean
    table = _table(f"{metric} by supercategory, percent", first.by_supercategory)
    base = {group: means[metric] for group, means in first.by_supercategory.items()}
    for summary in summaries:
        own = {group: means[metric] for group, means in summary.by_supercategory.items()}
        table.add_row(summary.strategy, *_cells(own, base, compare=summary is not first))
    return table


def nothing_table(summaries: Sequence[RunSummary]) -> Table:
    """For how many of the queries without a match, and of those with one, each run says that nothing matches, in
    percent; by supercategory of the queries, where none has a match."""
    first = summaries[0]
    without = first.queries - first.scored
    columns = {RIGHTLY: f"of {without} without a match", WRONGLY: f"of {first.scored} with one"}
    shown = [name for name, queries in ((RIGHTLY, without), (WRONGLY, first.scored)) if queries]
    groups = [] if first.scored else [*first.by_supercategory]
    table = _table("nothing is said to match, percent of queries", [*(columns[name] for name in shown), *groups])
    for summary in summaries:
        overall = (_cell(summary.metrics.get(name), None) for name in shown)
        by_group = (_cell(summary.by_supercategory[group].get(RIGHTLY), None) for group in groups)
        table.add_row(summary.strategy, *overall, *by_group)
    return table


def own_group_tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """The runs by the groups in which a data set reports its results, such as CIRCO's semantic aspects, a table for
    each of its two main metrics, in percent, with the differences in points to the first run."""
    first = summaries[0]
    kinds = [kind for kind in first.breakdowns if kind not in _KINDS]
    found = []
    for kind, metric in ((kind, metric) for kind in kinds for metric in first.reported.overview[:2]):
        names = [summary.strategy for summary in summaries]
        table = new_table(kind, *names, title=f"{metric} by {kind}, percent")
        for group in first.breakdowns[kind]:
            base, *others = (summary.breakdowns.get(kind, {}).get(group, {}).get(metric) for summary in summaries)
            table.add_row(plain(group), _cell(base, None), *(_cell(value, base) for value in others))
        found.append(table)
    return found


def task_table(summaries: Sequence[RunSummary]) -> Table:
    """Runs by the metrics of composed queries and of dialogues, in percent; BRI is a logarithm of ranks."""
    names = _task_metrics(summaries[0])
    table = _table("by the task's own metrics, percent", names)
    for summary in summaries:
        values = {name: summary.metrics.get(name) for name in names}
        cells = [_in_logarithms(value) if name == BRI else _cell(value, None) for name, value in values.items()]
        table.add_row(summary.strategy, *cells)
    return table


def round_table(summaries: Sequence[RunSummary], metric: str) -> Table:
    """Runs by the number of rounds of a dialogue, in one of the metrics that dialogues are told in, in percent."""
    rounds = summaries[0].by_round
    table = _table(f"{metric} by round ({_ROUNDS[metric]}), percent", map(str, rounds))
    for summary in summaries:
        table.add_row(summary.strategy, *(_cell(summary.by_round[done].get(metric), None) for done in rounds))
    return table


def cost_table(summaries: Sequence[RunSummary]) -> Table:
    """What the runs cost; `unknown` counts calls that gave no answer."""
    table = _table("cost", ["calls", "tokens in", "tokens out", "cached", "unknown", "seconds"])
    for summary in summaries:
        cost = summary.cost
        counts = (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.cached, summary.unknown)
        table.add_row(summary.strategy, *(f"{count:,}" for count in counts), f"{cost.wall:,.1f}")
    return table


def role_table(summaries: Sequence[RunSummary]) -> Table:
    """What each LMM answered in the runs that asked several, by role, and how many pairs a scoring model scored."""
    columns = ("strategy", "role", "model", "calls", "tokens in", "tokens out", "unknown")
    table = new_table(*columns, texts=3, title="cost by role")
    for summary in summaries:
        for role, cost in summary.by_role.items():
            name, model = role, model_name(own) if (own := role_identity(summary.lmm, cast("Role", role))) else ""
            if role == SCORER:
                name, model = "scorer (pairs)", _HASH.sub(lambda found: found[0][:8], summary.scorer or "")
            names = (plain(summary.strategy), name, plain(model))
            counts = (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.unknown)
            table.add_row(*names, *(f"{count:,}" for count in counts))
    return table


def sweep_table(summaries: Sequence[RunSummary]) -> Table:
    """The runs of a grid, best first, by quality in percent and by cost."""
    first = summaries[0]
    metrics = first.reported.overview
    title = f"{first.benchmark} ({first.split}), {first.scored} queries, by {first.reported.mean}, percent"
    table = new_table("", "strategy", *metrics, "calls", "tokens", "seconds", texts=2, title=title)
    for rank, summary in enumerate(summaries, start=1):
        values = (_cell(summary.metrics[name], None) for name in metrics)
        cost = summary.cost
        spent = (f"{cost.calls:,}", f"{cost.tokens:,}", f"{cost.wall:,.0f}")
        table.add_row(str(rank), plain(summary.strategy), *values, *spent)
    return table


def _task_metrics(summary: RunSummary) -> list[str]:
    shown = (*HEADLINE, *summary.reported.overview, *summary.reported.means, FIRST_STAGE_RECALL, RIGHTLY, WRONGLY)
    return [name for name in summary.metrics if name not in shown]


def _table(title: str, columns: Iterable[str]) -> Table:
    return new_table("strategy", *columns, title=title)


def _cells(own: Means, base: Means, *, compare: bool) -> list[str]:
    """A cell for each value that `base` names: in percent, with its difference in points where they are compared."""
    return [_cell(own.get(name), reference if compare else None) for name, reference in base.items()]


def _in_logarithms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(value: float | None, reference: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" {100 * (value - reference):+.1f}" if reference is not None else "")

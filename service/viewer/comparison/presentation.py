"""One comparison of runs as titled tables of typed cells, and sentences.

The terminal, Markdown, the HTML report and the viewer's pages all show these; each decides only how a cell looks.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.run_comparison import Contrast, Effect, Pair, per_query
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.service.viewer.charts.whiskers import Whisker, change_of, whiskers
from fieldscope.service.viewer.formats import Side, amount, count, kind_name, p_value, percent, side_of, signed
from fieldscope.service.viewer.runs.metrics import Mean
from fieldscope.service.viewer.runs.overview import Totals
from fieldscope.service.wiring.feedback import program, spelled

EXPLAINED = (
    "Differences are means over queries, in percentage points, with 95 % bootstrap intervals. p is from a two-sided "
    "paired randomisation test; Holm is p adjusted for all pairs in a metric, or for all groups of one kind; * marks a "
    "difference that is significant at 5 %. A test detects a true difference of the size under 'detects', or larger, "
    "with a probability of 80 %."
)
COUNTED = (
    "Calls and tokens count every question of a run, also those that the response cache answered. Seconds are the time "
    "that the answers took when they were first given, summed over calls."
)
GAINS = (
    "The difference of each query, in points, largest gain first. The dashed line is the mean, the band its 95 % "
    "interval. Each bar links to its query."
)


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    `side` says whether it is a gain, `strong` that it stands out. `interval` belongs below or after the text. `drawn`
    is what a page draws instead of the text, `of` what the cell names, for pages that can link to it.
    """

    text: str
    side: Side = "even"
    strong: bool = False
    interval: str = ""
    drawn: Whisker | None = None
    of: ScoredRun | Pair | str | None = None


@dataclass(frozen=True)
class Column:
    """A column: of `numbers`, of `words`, of `drawn` cells, which only pages show, or of `code` to type."""

    name: str
    kind: str = "numbers"


@dataclass(frozen=True)
class Table:
    """A titled table; `note` explains it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def title(comparison: Contrast) -> str:
    """What was compared."""
    benchmark, split = comparison.runs[0].benchmark
    return f"{benchmark} ({split}): {len(comparison.runs)} runs compared over {count(comparison.queries)} queries"


def versus(pair: Pair) -> str:
    """The names of a pair."""
    return f"{pair.b.name} against {pair.a.name}"


def best_run(comparison: Contrast) -> ScoredRun:
    """The run with the best mean of the main metric, the first of equals."""
    return max(comparison.runs, key=lambda run: run.mean(per_query(comparison.main)))


def findings(comparison: Contrast) -> list[str]:
    """A sentence for the best run, and one about its difference to each of the others, in the main metric."""
    best, main = best_run(comparison), comparison.main
    pairs = [pair for pair in comparison.pairs if best in (pair.a, pair.b)]
    leader = f"{best.name} has the best {main}: {percent(best.mean(per_query(main)))}."
    return [leader, *(finding(comparison, pair) for pair in pairs)]


def finding(comparison: Contrast, pair: Pair) -> str:
    """Which run of a pair is better in the main metric, and how sure that is; the better run comes first."""
    effect, main = pair.effects[comparison.main], comparison.main
    low, high, gain = effect.test.low, effect.test.high, effect.test.difference
    better, other = pair.b.name, pair.a.name
    if gain < 0:
        better, other, low, high, gain = other, better, -high, -low, -gain
    p = p_value(effect.p_holm)
    adjusted = " after Holm" if len(comparison.pairs) > 1 else ""
    certainty = f"95 % interval {_span(low, high)}, p {'' if p.startswith('<') else '= '}{p}{adjusted}"
    if effect.significant:
        return f"{better} beats {other} by {percent(gain)} points of {main} ({certainty})."
    return f"{better} and {other} can't be told apart: {percent(gain)} points of {main} may be chance ({certainty})."


def quality_table(comparison: Contrast, means: Mapping[str, Mapping[str, Mean]] | None = None) -> Table:
    """The mean metrics of each run. `means`, by run and metric, adds their intervals."""

    def cell(run: ScoredRun, metric: str) -> Cell:
        mean = means[run.name][metric] if means else None
        interval = f"{percent(mean.low)}–{percent(mean.high)}" if mean else ""
        return Cell(percent(run.mean(per_query(metric))), interval=interval)

    best = best_run(comparison)
    return Table(
        f"Quality: means over {count(comparison.queries)} queries, percent",
        (Column("run", "words"), *map(Column, comparison.metrics)),
        tuple(
            (Cell(run.name, of=run, strong=run is best), *(cell(run, metric) for metric in comparison.metrics))
            for run in comparison.runs
        ),
        note="Brackets and small numbers are 95 % intervals." if means else "",
    )


def cost_table(
    runs: Sequence[ScoredRun], comparison: Contrast | None = None, totals: Sequence[Totals] | None = None
) -> Table:
    """What each run spent. A `comparison` adds money and the front of quality and cost, `totals` (one for each run)
    the questions that the cache answered and those that were never asked."""
    currency = comparison.currency if comparison else None
    columns = ["calls", "calls a query", "tokens read", "tokens written", "seconds", "unknown"]
    columns += ["not asked", "from cache"] if totals else []
    columns += [currency] if currency else []
    columns += ["front"] if comparison else []
    front = comparison.fronts[comparison.main_cost] if comparison else []
    rows = []
    for place, run in enumerate(runs):
        spent = run.spent
        texts = [count(spent.calls), f"{spent.calls / max(1, len(run.requests)):,.1f}"]
        texts += [
            count(spent.prompt_tokens),
            count(spent.completion_tokens),
            f"{spent.seconds:,.0f}",
            count(run.unknown),
        ]
        texts += [count(totals[place].not_asked), count(totals[place].cached)] if totals else []
        texts += [amount(run.money or 0.0)] if currency else []
        texts += ["●" if run.name in front else ""] if comparison else []
        rows.append((Cell(run.name, of=run), *map(Cell, texts)))
    note = COUNTED
    if comparison:
        less = "less money" if currency else "fewer tokens"
        note = f"● No other run has as much {comparison.main} for {less}. {COUNTED}"
    return Table("Cost", (Column("run", "words"), *map(Column, columns)), tuple(rows), note)


def pairs_table(comparison: Contrast, metric: str) -> Table:
    """What each run B changes against run A in one metric."""
    effects = [pair.effects[metric] for pair in comparison.pairs]
    measured = any(effect.detectable is not None for effect in effects)
    rows = tuple(
        (
            Cell(versus(pair), of=pair),
            *_effect_cells(effect, drawn),
            Cell(p_value(effect.test.p)),
            _holm(effect),
            _outcome(effect),
            *([_points(effect.detectable)] if measured else []),
        )
        for pair, effect, drawn in zip(comparison.pairs, effects, whiskers(effects), strict=True)
    )
    columns = (Column("runs", "words"), *_EFFECT, Column("p"), Column("Holm"), _OUTCOME)
    detects = (Column("detects"),) if measured else ()
    return Table(f"{metric}: B against A, points", (*columns, *detects), rows)


def groups_table(comparison: Contrast, kind: str, pairs: Sequence[Pair] | None = None) -> Table:
    """What each run B changes against run A, by group of one kind, in all metrics; of some `pairs`, or of all."""
    pairs = comparison.pairs if pairs is None else pairs
    main, *others = comparison.metrics
    cases = [(pair, group, effects) for pair in pairs for group, effects in pair.groups[kind].items()]
    drawn = whiskers([effects[main] for _, _, effects in cases])
    rows = tuple(
        (
            *([Cell(versus(pair), of=pair)] if len(pairs) > 1 else []),
            Cell(group),
            Cell(count(effects[main].test.queries)),
            *_effect_cells(effects[main], whisker),
            _holm(effects[main]),
            _outcome(effects[main]),
            *(_change(effects[other]) for other in others),
        )
        for (pair, group, effects), whisker in zip(cases, drawn, strict=True)
    )
    name = kind_name(kind)
    columns = (
        *([Column("runs", "words")] if len(pairs) > 1 else []),
        Column(name, "words"),
        Column("queries"),
        *_EFFECT,
        Column("Holm"),
        _OUTCOME,
        *map(Column, others),
    )
    return Table(f"{main} by {name}: B against A, points", columns, rows)


def queries_table(comparison: Contrast, pair: Pair, queries: Sequence[str], what: str) -> Table:
    """Single queries: the main metric of both runs in percent, what B gains in each metric in points, and the command
    that shows both traces."""
    main = per_query(comparison.main)
    rows = tuple(
        (
            Cell(query, of=query),
            Cell(pair.a.text(query)),
            Cell(percent(pair.a.values[query][main])),
            Cell(percent(pair.b.values[query][main])),
            *(_gain(pair.differences[metric][query]) for metric in comparison.metrics),
            Cell(trace_command(pair, query)),
        )
        for query in queries
    )
    gains = (Column(f"Δ {metric}") for metric in comparison.metrics)
    runs = (Column(pair.a.name), Column(pair.b.name))
    columns = (Column("query", "words"), Column("text", "words"), *runs, *gains, Column("show both traces", "code"))
    return Table(f"{versus(pair)}: {what}", columns, rows)


def lists_of(
    comparison: Contrast, pair: Pair, outcomes: Sequence[str] = ("won", "lost", "tied")
) -> dict[str, list[str]]:
    """The queries that B won, lost and tied in the main metric, below a heading; without empty lists."""
    main = comparison.main
    lists = {"won": pair.won(main), "lost": pair.lost(main), "tied": pair.tied(main)}
    return {f"{len(lists[name])} {name} in {main}": lists[name] for name in outcomes if lists[name]}


def trace_command(pair: Pair, query: str) -> str:
    """What to type to see both traces of a query side by side."""
    quoted = (shlex.quote(str(part)) for part in (pair.a.folder, query, "--diff", pair.b.folder))
    return spelled(f"{program()} trace {' '.join(quoted)}")


_EFFECT = (Column("B − A"), Column("", "drawn"), Column("95 % interval"))
_OUTCOME = Column("won/tied/lost")


def _effect_cells(effect: Effect, drawn: Whisker) -> tuple[Cell, ...]:
    return _change(effect), Cell("", drawn=drawn), Cell(_span(effect.test.low, effect.test.high))


def _change(effect: Effect) -> Cell:
    return Cell(signed(effect.test.difference), side_of(change_of(effect)))


def _gain(gain: float) -> Cell:
    return Cell(signed(gain), side_of(gain))


def _points(share: float | None) -> Cell:
    return Cell(percent(share))


def _holm(effect: Effect) -> Cell:
    return Cell(p_value(effect.p_holm) + ("*" if effect.significant else ""), strong=effect.significant)


def _outcome(effect: Effect) -> Cell:
    return Cell(f"{effect.test.wins}/{effect.test.ties}/{effect.test.losses}")


def _span(low: float, high: float) -> str:
    return f"{signed(low)} to {signed(high)}"

"""One comparison of runs as titled tables of typed cells, and sentences.

The terminal, Markdown, the HTML report and the viewer's pages all show these; each decides only how a cell looks.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.eval.measures.paired import Mean
from fieldscope.eval.measures.run_comparison import Effect, ScoredComparison, ScoredPair
from fieldscope.eval.reported import RIGHTLY, WRONGLY
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.service.viewer.charts.whiskers import Whisker, change_of, whiskers
from fieldscope.service.viewer.formats import Side, amount, count, kind_name, p_value, percent, plural, side_of, signed
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
    of: ScoredRun | ScoredPair | str | None = None


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


def with_interval(cell: Cell) -> str:
    """A cell as text alone."""
    return f"{cell.text} [{cell.interval}]" if cell.interval else cell.text


def title(comparison: ScoredComparison) -> str:
    """What was compared."""
    benchmark, split = comparison.runs[0].benchmark
    queries = plural(comparison.queries, "query", "queries")
    return f"{benchmark} ({split}): {len(comparison.runs)} runs compared over {queries}"


def versus(pair: ScoredPair) -> str:
    """The names of a pair."""
    return f"{pair.b.name} against {pair.a.name}"


def findings(comparison: ScoredComparison) -> list[str]:
    """A sentence for the run with the best mean of the main metric, and one for its difference to each other run."""
    main = comparison.main
    mean, best = _best(comparison)
    pairs = [pair for pair in comparison.pairs if best is pair.a or best is pair.b]
    leader = f"{best.name} has the best {main}: {percent(mean)}."
    return [leader, *(finding(comparison, pair) for pair in pairs)]


def finding(comparison: ScoredComparison, pair: ScoredPair) -> str:
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
    return f"{better} and {other} do not differ clearly: {percent(gain)} points of {main} may be chance ({certainty})."


def quality_table(comparison: ScoredComparison) -> Table:
    """The mean metrics of each run with their intervals."""
    _, best = _best(comparison)
    rows = [
        (Cell(run.name, of=run, strong=run is best), *(_mean(comparison.means[m][place]) for m in comparison.metrics))
        for place, run in enumerate(comparison.runs)
    ]
    name = f"Quality: means over {plural(comparison.queries, 'query', 'queries')}, in percent"
    return Table(name, (Column("run", "words"), *map(Column, comparison.metrics)), tuple(rows))


def nothing_table(comparison: ScoredComparison) -> Table | None:
    """For how many queries each run says that nothing matches: of those without a match, where that is right, and of
    those with one; None where no run decided it."""
    runs = comparison.runs
    queries = {metric: max(len(run.nothing.get(metric, {})) for run in runs) for metric in (RIGHTLY, WRONGLY)}
    shown = [metric for metric, number in queries.items() if number]
    if not shown:
        return None
    names = {RIGHTLY: f"of {queries[RIGHTLY]} without a match", WRONGLY: f"of {queries[WRONGLY]} with one"}
    rows = tuple((Cell(run.name, of=run), *(_share(run.nothing.get(metric, {})) for metric in shown)) for run in runs)
    columns = (Column("run", "words"), *(Column(names[metric]) for metric in shown))
    return Table("Nothing is said to match, percent of queries", columns, rows)


def cost_table(
    runs: Sequence[ScoredRun], comparison: ScoredComparison | None = None, totals: Sequence[Totals] | None = None
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
        texts += [count(totals[place].usage.not_asked), count(totals[place].usage.cached)] if totals else []
        texts += [amount(run.money or 0.0)] if currency else []
        texts += ["●" if run.name in front else ""] if comparison else []
        rows.append((Cell(run.name, of=run), *map(Cell, texts)))
    note = COUNTED
    if comparison:
        less = "less money" if currency else "fewer tokens"
        note = f"● No other run has as much {comparison.main} for {less}. {COUNTED}"
    return Table("Cost", (Column("run", "words"), *map(Column, columns)), tuple(rows), note)


def pairs_table(comparison: ScoredComparison, metric: str, *, detects: bool = True) -> Table:
    """What each run B changes against run A in one metric. `detects` adds the differences that the tests can detect,
    which take a while to work out."""
    effects = [pair.effects[metric] for pair in comparison.pairs]
    rows = tuple(
        (
            Cell(versus(pair), of=pair),
            *_effect_cells(effect, drawn),
            Cell(p_value(effect.test.p)),
            _holm(effect),
            _outcome(effect),
            *([Cell(percent(effect.detectable))] if detects else []),
        )
        for pair, effect, drawn in zip(comparison.pairs, effects, whiskers(effects), strict=True)
    )
    columns: tuple[Column, ...] = (Column("B against A", "words"), *_EFFECT, Column("p"), Column("Holm"), _OUTCOME)
    columns += (Column("detects"),) if detects else ()
    return Table(f"{metric}: B against A, in points", columns, rows)


def groups_table(comparison: ScoredComparison, kind: str, pairs: Sequence[ScoredPair] | None = None) -> Table:
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
        *([Column("B against A", "words")] if len(pairs) > 1 else []),
        Column(name, "words"),
        Column("queries"),
        *_EFFECT,
        Column("Holm"),
        _OUTCOME,
        *map(Column, others),
    )
    return Table(f"{main} by {name}: B against A, in points", columns, rows)


def queries_table(comparison: ScoredComparison, pair: ScoredPair, queries: Sequence[str], what: str) -> Table:
    """Single queries: the main metric of both runs in percent, what B gains in each metric in points, and the command
    that shows both traces."""
    a, b = comparison.runs.index(pair.a), comparison.runs.index(pair.b)
    values = {query: comparison.values[query][comparison.main] for query in queries}
    rows = tuple(
        (
            Cell(query, of=query),
            Cell(pair.a.text(query)),
            Cell(percent(values[query][a])),
            Cell(percent(values[query][b])),
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
    comparison: ScoredComparison, pair: ScoredPair, outcomes: Sequence[str] = ("won", "lost", "tied")
) -> dict[str, list[str]]:
    """The queries that B won, lost and tied in the main metric, below a heading; without empty lists."""
    main = comparison.main
    lists = {"won": pair.won(main), "lost": pair.lost(main), "tied": pair.tied(main)}
    return {f"{len(lists[name])} {name} in {main}": lists[name] for name in outcomes if lists[name]}


def trace_command(pair: ScoredPair, query: str) -> str:
    """What to type to see both traces of a query side by side."""
    quoted = (shlex.quote(str(part)) for part in (pair.a.folder, query, "--diff", pair.b.folder))
    return spelled(f"{program()} trace {' '.join(quoted)}")


_EFFECT = (Column("B − A"), Column("", "drawn"), Column("95 % interval"))
_OUTCOME = Column("won/tied/lost")


def _best(comparison: ScoredComparison) -> tuple[float, ScoredRun]:
    """The best mean of the main metric, and its run, the first of equals."""
    means = [mean.value for mean in comparison.means[comparison.main]]
    return max(means), comparison.runs[means.index(max(means))]


def _mean(mean: Mean) -> Cell:
    return Cell(percent(mean.value), interval=f"{percent(mean.low)}–{percent(mean.high)}")


def _share(said: Mapping[str, float]) -> Cell:
    """The share of queries of which it was said, and how many these are; nothing where it was not decided."""
    if not said:
        return Cell("–")
    return Cell(percent(sum(said.values()) / len(said)), interval=f"{count(int(sum(said.values())))} of {len(said)}")


def _effect_cells(effect: Effect, drawn: Whisker) -> tuple[Cell, ...]:
    return _change(effect), Cell("", drawn=drawn), Cell(_span(effect.test.low, effect.test.high))


def _change(effect: Effect) -> Cell:
    return Cell(signed(effect.test.difference), side_of(change_of(effect)))


def _gain(gain: float) -> Cell:
    return Cell(signed(gain), side_of(gain))


def _holm(effect: Effect) -> Cell:
    return Cell(p_value(effect.p_holm) + ("*" if effect.significant else ""), strong=effect.significant)


def _outcome(effect: Effect) -> Cell:
    return Cell(f"{effect.test.wins}/{effect.test.ties}/{effect.test.losses}")


def _span(low: float, high: float) -> str:
    return f"{signed(low)} to {signed(high)}"

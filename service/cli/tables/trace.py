"""A trace in a terminal: the thought, the predicates, the verdicts, the comparisons, and what each stage moved.

Texts of users and models are shown as plain text: neither rich's markup nor a terminal's control characters in them
have any effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fieldscope.agent.scoring import query_scores
from fieldscope.agent.trace_nothing import nothing
from fieldscope.agent.trace_view import (
    RELATIVE,
    Matchup,
    StageCost,
    error_counts,
    first_shown_wins,
    matchups,
    named_document,
    stage_costs,
    verdicts_by_image,
)
from fieldscope.agent.types import Predicate, Reason, RerankResult, Verdict
from fieldscope.agent.usage import Usage
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.looks import looks_of
from fieldscope.service.cli.tables.ranking import moved_by
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.cli.tables.timeline import timeline
from fieldscope.service.cli.tables.trace_parts import heading, line, number

SHOWN = 20
"""How many images and how many comparisons are shown without `--all`."""

_NEAREST = 5  # of the nearest images where nothing matches
_COLUMNS = 8  # predicates side by side that fit into 100 columns, with room for an image's name


def render_trace(result: RerankResult, limit: int | None = SHOWN) -> RenderableType:
    """What led to a ranking. Of images and comparisons the first `limit` are shown, all where None."""
    return Group(
        *header(result),
        *_thought(result),
        *_predicates(result.predicates),
        *_verdicts(result, limit),
        *looks_of(result, limit),
        *_compared(result, limit),
        *_thoughts(result, limit),
        *_reasons(result.reasons),
        heading("what each stage asked and moved"),
        _stages(stage_costs(result)),
        heading("what happened"),
        timeline(result.trace),
    )


def header(result: RerankResult) -> Iterator[RenderableType]:
    """The request, what it was run with, how it ended, and what is to be known of the result."""
    yield line("query", f"{result.query_text}  (id {result.query_id})")
    if result.reference_image is not None:
        yield line("reference", result.reference_image)
    for turn in result.dialogue:
        yield line("asked", f"{turn.question}  {turn.answer}")
    yield line("strategy", result.strategy)
    usage = Usage.of(result.asked)
    everything = (*result.calls, *result.verdicts, *result.comparisons, *result.reasons)
    never = sum(question.state == "not_asked" for question in everything)
    yield line(
        "calls",
        f"{usage.calls - usage.unknown} answered ({usage.cached} from the cache), {usage.unknown} unknown, "
        f"{never} not asked; {usage.tokens} tokens",
    )
    if result.scores:
        pairs = Usage.of(result.scores)
        yield line(
            "scored",
            f"{pairs.calls - pairs.unknown} pairs ({pairs.cached} from the cache), {pairs.unknown} unknown, "
            f"{pairs.not_asked} not asked",
        )
    if result.ended:
        yield line("ended", f"the budget ran out in the stage {result.ended}", "yellow")
    if result.relative:
        yield line("note", RELATIVE)
    if decision := nothing(result):
        yield from (line("" if at else "matches", said, "yellow") for at, said in enumerate(decision.sentences))
        nearest = [f"{near.image} ({near.parts} parts)" for near in decision.nearest[:_NEAREST]]
        yield from [line("nearest", ", ".join(nearest))] if nearest else []
    yield from (line("warning", flag, "yellow") for flag in result.flags)


def verdict_cell(verdict: Verdict | None) -> Text:
    """P(expected) in percent, which is never quite 0 or 100; ? where it is unknown, · where it was not asked."""
    if verdict is None or verdict.state == "not_asked":
        return Text("·", style="dim")
    if verdict.p_expected is None:
        return Text("?", style="yellow")
    percent = 100 * verdict.p_expected
    text = "<1" if percent < 0.5 else ">99" if percent > 99.5 else f"{percent:.0f}"
    return Text(text, style="green" if percent >= 50 else "red")


def comparisons_table(matched: Sequence[Matchup]) -> Table:
    """One row for each pair or set of images, with P(best) in both orders, both written along the images."""
    table = new_table("compared", "P(best), shown so", "other order", edge=False)
    table.add_column("orders")
    for matchup in matched:
        first, *others = (_probabilities(matchup, n) for n in range(len(matchup.comparisons)))
        table.add_row(
            plain(" | ".join(matchup.images)),
            first,
            Text("\n").join(others) if others else Text("-", style="dim"),
            {True: Text("agree"), False: Text("disagree", style="red"), None: Text("-", style="dim")}[matchup.agree],
        )
    return table


def reason_lines(reason: Reason) -> Iterator[RenderableType]:
    """A reason, and a mark where it speaks against the verdict."""
    if reason.state != "answered":
        yield line("reason", f"{reason.state.replace('_', ' ')}: {reason.error}", "yellow")
        return
    yield line("reason", reason.text)
    if reason.agrees is False:
        yield line("", f"≠ the reason says {reason.says}, the verdict does not", "red")


def verdict_lines(verdict: Verdict) -> Iterator[RenderableType]:
    """How P(yes) was read, where not from the log-probabilities of one answer, and what the model thought first."""
    if how := _reading(verdict):
        yield line("read", how)
    for asked in verdict.draws or (verdict,):
        if asked.thought:
            yield line("thought", asked.thought)
            yield line("", f"answer: {asked.answer.strip() or asked.state}", "dim")


def _reading(verdict: Verdict) -> str:
    counting = [draw for draw in verdict.draws if draw.state == "answered" and draw.reasoned == verdict.reasoned]
    after = " after a thought" if verdict.reasoned else ""
    if verdict.mode == "stated":
        return "the model stated the probability"
    if verdict.mode == "scored":
        return "the scoring model's score of the question, calibrated"
    if verdict.mode == "samples":
        yes = sum(draw.says == "yes" for draw in counting)
        return f"the smoothed share of plain answers{after}: {yes} of {len(counting)} say yes" if counting else ""
    if len(counting) > 1:
        return f"the mean of {len(counting)} answers{after}: " + ", ".join(number(draw.p_yes) for draw in counting)
    return f"one answer{after}" if after else ""


def columns(predicates: Sequence[Predicate]) -> dict[str, str]:
    """A short name for each predicate: its id, or p1, p2 ... where ids are long."""
    if len(predicates) == 1 or all(len(predicate.id) <= 3 for predicate in predicates):
        return {predicate.id: predicate.id for predicate in predicates}
    return {predicate.id: f"p{n}" for n, predicate in enumerate(predicates, start=1)}


def _thought(result: RerankResult) -> Iterator[RenderableType]:
    synthesis = result.synthesis
    if synthesis is None:
        return
    if synthesis.fallback:
        yield line("fallback", f"the query's own words are used instead: {synthesis.fallback}", "yellow")
    for name in ("thought", "core", "detailed", "comprehensive"):
        words = getattr(synthesis, name)
        if words:
            yield line("in full" if name == "comprehensive" else name, words)
    for instruction in synthesis.instructions:
        yield line("do", f'{instruction.type}: {instruction.text}  ("{instruction.words}")')


def _predicates(predicates: Sequence[Predicate]) -> Iterator[RenderableType]:
    if not predicates:
        return
    short = columns(predicates)
    table = new_table(edge=False)
    for name in ("id", "kind"):
        table.add_column(name)
    table.add_column("question", overflow="fold")
    table.add_column("expected")
    table.add_column("the query's words", overflow="fold")
    for p in predicates:
        named = p.id if short[p.id] == p.id else f"{short[p.id]} ({p.id})"
        table.add_row(*map(plain, (named, p.kind, p.question, p.expected, p.words)))
    yield heading("predicates")
    yield table


def _verdicts(result: RerankResult, limit: int | None) -> Iterator[RenderableType]:
    """The ranking. More predicates than fit side by side go into tables of their own."""
    short = columns(result.predicates)
    ids = list(short)
    by_image = verdicts_by_image(result)
    shown = result.ranking[:limit]
    title = "ranking, with P(expected) in percent (? unknown, · not asked)" if ids else "ranking"
    yield heading(title)
    for start in range(0, max(len(ids), 1), _COLUMNS):
        some = ids[start : start + _COLUMNS]
        table = new_table(edge=False)
        scored = query_scores(result.scores)
        for name in ("rank", "moved", "P(match)", "90 %", "prior", *(["scorer"] if result.scores else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for predicate in some:
            table.add_column(plain(short[predicate]), justify="right", no_wrap=True)
        table.add_column("image", overflow="fold")
        for r in shown:
            interval = "-" if r.rank_low is None or r.rank_high is None else f"{r.rank_low}–{r.rank_high}"
            verdicts = by_image.get(r.image_id, {})
            cells = (verdict_cell(verdicts.get(predicate)) for predicate in some)
            known = (str(r.rank), moved_by(r.prior_rank - r.rank), number(r.p_match), interval, number(r.prior, 3))
            score = [number(scored.get(r.image_id), 3)] if result.scores else []
            table.add_row(*known, *score, *cells, plain(named_document(r)))
        yield table
    yield from _more(len(result.ranking) - len(shown), "images")
    yield from (line("unknown", f"{count} × {error}", "yellow") for error, count in error_counts(result).items())


def _compared(result: RerankResult, limit: int | None) -> Iterator[RenderableType]:
    compared = matchups(result.comparisons)
    if not compared:
        return
    yield heading("comparisons")
    yield comparisons_table(compared[:limit])
    yield from _more(len(compared[limit:]) if limit else 0, "comparisons")
    both = [matchup.agree for matchup in compared if matchup.agree is not None]
    if both:
        first = first_shown_wins(compared)
        bias = "" if first is None else f"; the image shown first wins {first:.0%}"
        yield line("orders", f"agree in {sum(both)} of {len(both)}{bias}")


def _thoughts(result: RerankResult, limit: int | None) -> Iterator[RenderableType]:
    """What the model thought before it answered, of the best images."""
    by_image, short = verdicts_by_image(result), columns(result.predicates)
    thoughtful = [
        (ranked.image_id, verdict)
        for ranked in result.ranking
        for verdict in by_image.get(ranked.image_id, {}).values()
        if verdict.thought
    ]
    if thoughtful:
        yield heading("thoughts before the answers")
    for image_id, verdict in thoughtful[:limit]:
        yield line("image", f"{image_id}, {short.get(verdict.predicate, verdict.predicate)}")
        yield from verdict_lines(verdict)
    yield from _more(len(thoughtful[limit:]) if limit else 0, "thoughts")


def _reasons(reasons: Sequence[Reason]) -> Iterator[RenderableType]:
    if reasons:
        yield heading("reasons, asked after the verdicts")
    for reason in reasons:
        yield line("image", reason.image_id)
        yield from reason_lines(reason)


def _stages(costs: Iterable[StageCost]) -> Table:
    table = new_table("stage", "calls", "cached", "unknown", "not asked", "tokens", "seconds", edge=False)
    table.add_column("moved", overflow="fold")
    for cost in costs:
        usage = cost.usage
        counts = (usage.calls, usage.cached, usage.unknown, usage.not_asked, usage.tokens, f"{usage.seconds:.2f}")
        told = map(str, counts) if usage.calls or usage.not_asked else [""] * len(counts)
        table.add_row(plain(cost.stage), *told, plain(_movement(cost)))
    return table


def _movement(cost: StageCost) -> str:
    if not cost.moved:
        return "" if cost.moved is None else "nothing"
    furthest = max(cost.moved, key=lambda image_id: abs(cost.moved[image_id]) if cost.moved else 0)
    images = "1 image" if len(cost.moved) == 1 else f"{len(cost.moved)} images"
    return f"{images}, furthest {furthest} {moved_by(cost.moved[furthest])}"


def _probabilities(matchup: Matchup, n: int) -> Text:
    comparison = matchup.comparisons[n]
    shares = matchup.p_best(comparison)
    if not shares:
        return plain(f"{comparison.state.replace('_', ' ')}: {comparison.error}", "yellow")
    return Text(" | ".join(f"{share:.2f}" for share in shares))


def _more(count: int, what: str) -> Iterator[RenderableType]:
    if count > 0:
        yield Text(f"{count} more {what}; --all shows them", style="dim")

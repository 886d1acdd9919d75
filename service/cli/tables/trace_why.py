"""Why an image is at its rank, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from fieldscope.agent.trace_why import Neighbour, Part, Why
from fieldscope.agent.types import RerankResult
from fieldscope.service.cli.console import plain
from fieldscope.service.cli.tables.looks import looks_at
from fieldscope.service.cli.tables.ranking import moved_by
from fieldscope.service.cli.tables.table import new_table
from fieldscope.service.cli.tables.trace import columns, comparisons_table, reason_lines, verdict_lines
from fieldscope.service.cli.tables.trace_parts import heading, line, number
from fieldscope.service.workflows.ranking import answer_of

_BAR = 12  # characters of the longest bar
_PARTS_SHOWN = 3  # parts that are shown of a neighbour


def render_why(result: RerankResult, explanation: Why) -> RenderableType:
    """One sentence, and below it everything that it rests on."""
    return Group(*_everything(result, explanation))


def _everything(result: RerankResult, explanation: Why) -> Iterator[RenderableType]:
    ranked, short = explanation.ranked, columns(result.predicates)
    yield plain(explanation.sentence, "bold")
    yield line("query", f"{result.query_text}  (id {result.query_id})")
    yield line("image", ranked.image_id)
    moved = moved_by(ranked.prior_rank - ranked.rank)
    yield line("rank", f"{ranked.rank} of {explanation.of}; the prior had it at {ranked.prior_rank} ({moved})")
    if ranked.rank_low is not None and ranked.rank_high is not None:
        yield line("90 %", f"its rank lies between {ranked.rank_low} and {ranked.rank_high}")
    yield line("score", f"{ranked.score:.6g} (prior {ranked.prior:.6g}, P(match) {number(ranked.p_match, 4)})")
    if explanation.reason is not None:
        yield from reason_lines(explanation.reason)
    if explanation.parts:
        yield heading(
            "the score in log-odds, which sum to it"
            if explanation.exact
            else "what was asked, with the log-odds of P(expected)"
        )
        yield _bars(explanation.parts, short)
    yield from looks_at(explanation)
    if explanation.matchups:
        yield heading("compared with others")
        yield comparisons_table(explanation.matchups)
    for where, neighbour in (("above", explanation.above), ("below", explanation.below)):
        if neighbour is not None:
            yield from _next_to(where, neighbour, explanation, short)
    yield from _calls(explanation.parts, short)


def _bars(parts: tuple[Part, ...], short: Mapping[str, str]) -> RenderableType:
    longest = max(abs(part.log_odds or 0.0) for part in parts) or 1.0
    table = new_table(edge=False)
    table.add_column("log-odds", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("of", no_wrap=True)
    table.add_column("question, answer and the query's words", overflow="fold")
    table.add_column("P(expected)", justify="right", no_wrap=True)
    for part in parts:
        share = part.log_odds or 0.0
        bar = Text("█" * round(_BAR * (abs(share) / longest)), style="green" if share > 0 else "red")
        value = "-" if part.log_odds is None else f"{part.log_odds:+.2f}"
        p_expected = number(part.verdict.p_expected if part.verdict else None) if part.predicate else ""
        table.add_row(value, bar, plain(short.get(part.source, part.source)), _question(part), plain(p_expected))
    return table


def _question(part: Part) -> Text:
    """A part's question and, below it, what was said to it and whose words it is about."""
    if part.predicate is None:
        return plain("")
    said = f"{answer_of(part.verdict)}, expected {part.predicate.expected}"
    words = f'; of "{part.predicate.words}"' if part.predicate.words else ""
    return Text("\n").join((plain(part.predicate.question), plain(said + words, "dim")))


def _calls(parts: tuple[Part, ...], short: Mapping[str, str]) -> Iterator[RenderableType]:
    """Where each answer lies in the response cache, and what it took."""
    asked = [part for part in parts if part.verdict is not None and part.verdict.state != "not_asked"]
    if asked:
        yield heading("its calls")
    for part in asked:
        verdict = part.verdict
        assert verdict is not None
        took = "from the cache" if verdict.cached else f"{verdict.latency:.3f} s"
        yield line(
            short.get(part.source, part.source),
            f"{verdict.prompt_tokens} tokens read, {verdict.completion_tokens} written, {took}",
        )
        yield from verdict_lines(verdict)
        for place, each in enumerate(verdict.draws or (verdict,), start=1):
            if each.request_key:
                yield line("", f"request{f' {place}' if verdict.draws else ''} {each.request_key}", "dim")


def _next_to(where: str, neighbour: Neighbour, explanation: Why, short: Mapping[str, str]) -> Iterator[RenderableType]:
    questions = {part.source: part.predicate.question for part in explanation.parts if part.predicate}
    lead = f"{abs(neighbour.ahead):.3g} {'behind' if neighbour.ahead < 0 else 'ahead of'}"
    yield heading(f"just {where}, at rank {neighbour.rank}")
    yield line("image", neighbour.image_id)
    yield line("score", f"this image is {lead} it")
    for difference in neighbour.differences[:_PARTS_SHOWN]:
        source = difference.source
        yield line(f"{difference.log_odds:+.2f}", f"{short.get(source, source)} {questions.get(source, '')}".strip())

"""Reading and writing results with their trace, and showing them in a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.types import RankedCandidate, RerankResult, TraceEvent, Verdict
from core.errors import ConfigError
from core.validation import unknown_name

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def result_to_json(result: RerankResult) -> str:
    """The whole result as one line of JSON, without a line break."""
    return result.model_dump_json()


def result_from_json(line: str) -> RerankResult:
    """The result that `result_to_json` wrote. Raises `ConfigError` for a cut-off or foreign line."""
    try:
        return RerankResult.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(step) for step in fault["loc"])
        raise ConfigError(f"not a rerank result of this version ({key or 'JSON'}: {fault['msg']})") from error


def render_trace(result: RerankResult, image_id: str | None = None) -> RenderableType:
    """What led to a ranking, for rich's console: all images in a table, or everything about one of them.

    Texts of users and models are shown as plain text: neither rich's markup nor a terminal's control characters in
    them have any effect. Raises `ConfigError` for an image that is not in the ranking.
    """
    if image_id is None:
        return Group(*_header(result), _ranking(result), Text(), _timeline(result.trace))
    ranked = next((r for r in result.ranking if r.image_id == image_id), None)
    if ranked is None:
        raise ConfigError(unknown_name("image", image_id, (r.image_id for r in result.ranking)))
    return Group(*_header(result), *_image(result, ranked))


def _header(result: RerankResult) -> Iterable[Text]:
    counts = Counter(verdict.state for verdict in result.verdicts)
    cached = sum(verdict.cached for verdict in result.verdicts)
    tokens = sum(verdict.prompt_tokens + verdict.completion_tokens for verdict in result.verdicts)
    yield _line("query", f"{result.query_text}  (id {result.query_id})")
    yield _line("strategy", result.strategy)
    yield from (_line("question", predicate.question) for predicate in result.predicates)
    yield _line(
        "verdicts",
        f"{counts['answered']} answered ({cached} from the cache), {counts['unknown']} unknown, "
        f"{counts['not_asked']} not asked; {tokens} tokens",
    )
    yield from (_line("warning", flag, "yellow") for flag in result.flags)
    yield Text()


def _ranking(result: RerankResult) -> Table:
    verdicts = {verdict.image_id: verdict for verdict in result.verdicts}
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("rank", "moved", "P(yes)", "P(match)", "prior", "score"):
        table.add_column(name, justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("answer", overflow="fold")
    for r in result.ranking:
        verdict = verdicts.get(r.image_id)
        numbers = (verdict.p_yes if verdict else None, r.p_match, r.prior, r.score)
        row = (str(r.rank), _moved(r), *map(_number, numbers))
        table.add_row(*row, _plain(r.image_id), _answer(verdict))
    return table


def _image(result: RerankResult, ranked: RankedCandidate) -> Iterable[Text]:
    yield _line("image", ranked.image_id)
    yield _line("rank", f"{ranked.rank} of {len(result.ranking)}; the prior had it at {ranked.prior_rank}")
    yield _line("score", f"{ranked.score:.6g} (prior {ranked.prior:.6g}, P(match) {_number(ranked.p_match)})")
    questions = {predicate.id: predicate for predicate in result.predicates}
    for verdict in result.verdicts:
        if verdict.image_id != ranked.image_id:
            continue
        predicate = questions.get(verdict.predicate)
        yield Text()
        yield _line("asked", predicate.question if predicate else verdict.predicate)
        yield _line("expected", predicate.expected if predicate else "?")
        yield _line("answer", _answer(verdict).plain)
        yield _line("P(yes)", _number(verdict.p_yes))
        yield _line("tokens", f"{verdict.prompt_tokens} read, {verdict.completion_tokens} written")
        yield _line("time", "from the cache" if verdict.cached else f"{verdict.latency:.3f} s")
        yield _line("request", verdict.request_key or "none")


def _timeline(trace: Iterable[TraceEvent]) -> Table:
    """One row per event; a wave's verdicts, one after the other, share a row."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("seconds", justify="right")
    table.add_column("event")
    table.add_column("", overflow="fold")
    for group in _grouped(trace):
        last = group[-1]
        if last.kind == "verified":
            states = Counter(str(event.data.get("state")) for event in group)
            told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        else:
            told = _told(last.data)
        table.add_row(f"{max(event.at for event in group):.3f}", _plain(last.kind), _plain(told))
    return table


def _told(value: Any) -> str:
    """An event's data in words; of a fingerprint the first 12 digits."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(item)}" for key, item in value.items())
    text = str(value)
    return text[:12] if _FINGERPRINT.fullmatch(text) else text


def _grouped(trace: Iterable[TraceEvent]) -> list[list[TraceEvent]]:
    groups: list[list[TraceEvent]] = []
    for event in trace:
        if groups and event.kind == groups[-1][-1].kind == "verified":
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def _moved(ranked: RankedCandidate) -> str:
    up = ranked.prior_rank - ranked.rank
    return f"↑{up}" if up > 0 else f"↓{-up}" if up < 0 else "="


def _answer(verdict: Verdict | None) -> Text:
    if verdict is None or verdict.state == "not_asked":
        return Text("not asked", style="dim")
    if verdict.state == "unknown":
        return _plain(f"unknown: {verdict.error}", "yellow")
    return _plain(verdict.answer)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _line(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:>9}  ", "bold"), _plain(value, style))


def _plain(text: str, style: str = "") -> Text:
    """Text without markup, with control characters and other invisible ones (such as text direction) spelled out."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), style=style)

"""A query of a run: the request, its synthesis, the ranking, and what moved which image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from fieldscope.agent.trace_nothing import nothing
from fieldscope.agent.trace_view import error_counts, first_shown_wins, matchups, stage_costs
from fieldscope.agent.trace_why import Part, extremes, why
from fieldscope.agent.types import RerankResult
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.rank_flow import rank_flow
from fieldscope.service.viewer.comparison.comparable import companions
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.exchange import Exchange, exchanges
from fieldscope.service.viewer.runs.ranking import Shown, answers, images
from fieldscope.service.viewer.runs.rebuilt import asked_predicates
from fieldscope.service.viewer.runs.rounds import Round, rounds
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList

AT_FIRST = 24
"""The number of tiles shown at first."""

MOVERS = 6
"""The number of images listed as risen most, and as sunk most."""

_TITLE = 80  # characters
_CALLS = 60  # calls about no candidate that are shown in full, unless they are long
_ROOM = 150_000  # characters of all of them


class Score(NamedTuple):
    """A metric of the ranking and of the first stage's order."""

    name: str
    value: float
    before: float


@dataclass(frozen=True)
class Mover:
    """An image that moved far, and the part of its score that contributed most; None if only others moved."""

    shown: Shown
    part: Part | None


@dataclass(frozen=True)
class Compared:
    """A summary of the comparisons. `both` counts groups answered in two orders, `agree` those with the same best
    image."""

    asked: int
    groups: int
    both: int
    agree: int
    first_wins: float | None
    stopped: str | None


def page(run: Run, query_id: str, run_list: RunList) -> Page:
    """The page of a finished query, with links to comparisons with other runs. Raises `ConfigError` if its result can't
    be read."""
    result = run.result(query_id)
    address = addresses.query_page(run.key, query_id)
    link = partial(addresses.relative, page=address)
    thought = rounds(result)
    shown = images(result, run.relevant(query_id), lambda i: link(addresses.image_page(run.key, query_id, i)))
    previous, following = _neighbours(list(run.digests), query_id)
    costs = [cost for cost in stage_costs(result) if cost.stage != "rank"]
    digest = run.digests[query_id]
    caption = next((call.text for call in result.calls if call.stage == "caption"), "")
    words = [instruction.words for instruction in (result.synthesis.instructions if result.synthesis else ())]
    budget = run.configuration.budget.get("query")
    context = {
        "run": run,
        "result": result,
        "digest": digest,
        "scores": [
            Score(name, digest.scores[name], digest.prior_scores[name])
            for name in run.reported.values
            if name in digest.scores
        ],
        "request": highlighted(result.query_text, words),
        "caption": highlighted(caption, words),
        "dialogue": [(turn.question, highlighted(turn.answer, words)) for turn in result.dialogue],
        "asked": answers(shown, result, thought),
        "left_out": list(dict.fromkeys(_left_out(thought))),
        "shown": shown,
        "by_image": {each.ranked.image_id: each for each in shown},
        "at_first": AT_FIRST,
        "flow": rank_flow(result),
        "nothing": nothing(result),
        "movers": _movers(result, shown),
        "costs": costs,
        "budget": budget if isinstance(budget, dict) else {},
        "errors": error_counts(result),
        "compared": _compared(result),
        "rounds": thought,
        "calls": _calls(run, result),
        "rank_of": {ranked.image_id: ranked.rank for ranked in result.ranking},
        "companions": [each for each in companions(run, run_list) if each.ranked(query_id)],
        "compared_at": lambda keys: addresses.compare_query_page(keys, query_id),
        "questions": {name: predicate.question for name, predicate in asked_predicates(result).items()},
        "pictures": run.pictures,
        "no_pictures": run.no_pictures,
        "previous": previous and addresses.query_page(run.key, previous),
        "following": following and addresses.query_page(run.key, following),
    }
    title = f"{query_id}: {result.query_text}"
    return Page(
        address=address,
        template="query.html",
        title=title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…",
        context=context,
        crumbs=[("Runs", addresses.INDEX), (run.name, addresses.run_page(run.key))],
        scripts=["query.js", "call.js"],
        styles=["call.css", "query.css", "ranking.css"],
    )


def highlighted(text: str, words: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The text in pieces, each with the numbers (from 1) of the `words` that it is part of."""
    marks: list[tuple[int, ...]] = [()] * len(text)
    for number, wanted in enumerate(words, start=1):
        spaced = r"\s+".join(map(re.escape, wanted.split()))
        if spaced and (found := re.search(spaced, text, re.IGNORECASE)):
            for at in range(*found.span()):
                marks[at] += (number,)
    pieces = groupby(zip(text, marks, strict=True), key=itemgetter(1))
    return [("".join(letter for letter, _ in piece), numbers) for numbers, piece in pieces]


def _left_out(thought: Sequence[Round]) -> Iterator[tuple[str, str]]:
    """Questions that were not asked about candidates, and why."""
    for each in thought:
        for question in each.decomposed.left_out if each.decomposed else ():
            yield question, ""
        for question in each.checked.left_out if each.checked else ():
            yield question, "the reference image contradicts it"


def _movers(result: RerankResult, shown: Sequence[Shown]) -> dict[str, list[Mover]]:
    """The images that rose most and sank most, largest move first, then by rank."""
    rose = sorted((each for each in shown if each.moved > 0), key=lambda each: -each.moved)[:MOVERS]
    sank = sorted((each for each in shown if each.moved < 0), key=lambda each: each.moved)[:MOVERS]
    return {"rose": [_mover(result, each) for each in rose], "sank": [_mover(result, each) for each in sank]}


def _mover(result: RerankResult, shown: Shown) -> Mover:
    against, on_its_side = extremes(why(result, shown.ranked.image_id).parts)
    part, sign = (on_its_side, 1) if shown.moved > 0 else (against, -1)
    return Mover(shown, part if part and sign * (part.log_odds or 0.0) > 0 else None)


def _calls(run: Run, result: RerankResult) -> list[Exchange]:
    """The calls that are not about a single candidate, up to a total length. Joint answers come last, because the pages
    of their images show them, too."""
    calls = sorted(result.calls, key=lambda call: call.stage == "joint")
    found: list[Exchange] = []
    room = _ROOM
    for exchange in exchanges(run, result, calls[:_CALLS]):
        sides = (exchange.request, exchange.response)
        room -= sum(len(side.model_dump_json()) for side in sides if side is not None)
        if found and room < 0:
            break
        found.append(exchange)
    return found


def _compared(result: RerankResult) -> Compared | None:
    stopped = [event.data.get("stopped") for event in result.trace if event.kind == "paired"]
    said = next((words for words in reversed(stopped) if isinstance(words, str)), None)
    if not result.comparisons and said is None:
        return None
    found = matchups(result.comparisons)
    both = [matchup for matchup in found if matchup.agree is not None]
    return Compared(
        asked=sum(comparison.state != "not_asked" for comparison in result.comparisons),
        groups=len(found),
        both=len(both),
        agree=sum(bool(matchup.agree) for matchup in both),
        first_wins=first_shown_wins(found),
        stopped=said,
    )


def _neighbours(ids: Sequence[str], query_id: str) -> tuple[str | None, str | None]:
    at = ids.index(query_id)
    return (ids[at - 1] if at else None), (ids[at + 1] if at + 1 < len(ids) else None)

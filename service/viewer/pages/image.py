"""An image in a query's ranking: questions, answers, and the reasons for its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fieldscope.agent.trace_view import Matchup, verdicts_by_image
from fieldscope.agent.trace_why import why
from fieldscope.agent.types import Comparison, Predicate, RerankResult, Verdict
from fieldscope.service.viewer.addresses import INDEX, image_page, query_page, run_page
from fieldscope.service.viewer.charts.contributions import contributions
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.pages.looks import frame, taken_looks
from fieldscope.service.viewer.runs.exchange import Exchange, exchanges, used_prompts
from fieldscope.service.viewer.runs.rebuilt import asked_predicates
from fieldscope.service.viewer.runs.run import Run

Truth = Literal["match", "no match", "not judged"]


@dataclass(frozen=True)
class Question:
    """A predicate with the verdict that counts, its calls where there are several, and other verdicts about it.
    `counts` is false for a predicate that a refinement dropped."""

    predicate: Predicate
    exchange: Exchange
    draws: tuple[Exchange, ...]
    others: tuple[Exchange, ...]
    counts: bool


@dataclass(frozen=True)
class Order:
    """One order of a matchup's images. `p_best` has a value for each of the matchup's images, none without an answer;
    `best` is the most probable one."""

    exchange: Exchange
    shown: tuple[str, ...]
    p_best: tuple[float, ...]
    best: str | None


def page(run: Run, query_id: str, image_id: str) -> Page:
    """The page of an image. Raises `ConfigError` if the result can't be read."""
    result = run.result(query_id)
    found = why(result, image_id)
    place = result.ranking.index(found.ranked)
    verdicts = [verdict for verdict in result.verdicts if verdict.image_id == image_id]
    drawn = [draw for verdict in verdicts for draw in verdict.draws]
    compared = [comparison for matchup in found.matchups for comparison in matchup.comparisons]
    reasons = [found.reason] if found.reason else []
    known = {id(e.asked): e for e in exchanges(run, result, [*verdicts, *drawn, *compared, *reasons])}
    strategy = run.strategy_in_full
    looks = taken_looks(verdicts, asked_predicates(result), known)
    return Page(
        address=image_page(run.key, query_id, image_id),
        template="image.html",
        title=f"Image {image_id}",
        crumbs=[
            ("Runs", INDEX),
            (run.name, run_page(run.key)),
            (f"{query_id}: {_short(result.query_text)}", query_page(run.key, query_id)),
        ],
        styles=["call.css", "image.css"],
        scripts=["call.js", "image.js"],
        context={
            "run": run,
            "result": result,
            "why": found,
            "ranked": found.ranked,
            "rank_of": {each.image_id: each.rank for each in result.ranking},
            "scored": next((s for s in result.scores if s.image_id == image_id and s.predicate is None), None),
            "truth": _truth(run, query_id, image_id),
            "chart": contributions(found, strategy.fusion.method if strategy else None),
            "questions": _questions(result, [verdict for verdict in verdicts if verdict.look is None], known),
            "looks": looks,
            "frame": frame(run, image_id, looks),
            "matchups": [(each, [_order(each, c, known) for c in each.comparisons]) for each in found.matchups],
            "reason": known[id(found.reason)] if found.reason else None,
            "named": {each.id: each.question for each in asked_predicates(result).values()},
            "previous": result.ranking[place - 1] if place else None,
            "next": result.ranking[place + 1] if place + 1 < len(result.ranking) else None,
            "prompts": used_prompts(run),
            "metadata": run.records.of(image_id),
            "pictures": run.pictures,
            "no_pictures": run.no_pictures,
        },
    )


def _questions(result: RerankResult, verdicts: Sequence[Verdict], known: dict[int, Exchange]) -> list[Question]:
    """Predicates that count, in the result's order, then those that were dropped."""
    predicates = asked_predicates(result)
    counting = {predicate.id for predicate in result.predicates}
    leads = verdicts_by_image(result).get(verdicts[0].image_id, {}) if verdicts else {}
    about: dict[str, list[Verdict]] = {predicate.id: [] for predicate in result.predicates}
    for verdict in verdicts:
        about.setdefault(verdict.predicate, []).append(verdict)
    found = []
    for name, said in about.items():
        lead = leads.get(name) or (said[-1] if said else None)
        if lead is None:
            continue
        predicate = predicates.get(name) or Predicate(id=name, question=name, kind="other")
        others = tuple(known[id(verdict)] for verdict in said if verdict is not lead)
        draws = tuple(known[id(draw)] for draw in lead.draws)
        found.append(Question(predicate, known[id(lead)], draws, others, counts=name in counting))
    return found


def _order(matchup: Matchup, comparison: Comparison, known: dict[int, Exchange]) -> Order:
    p_best = matchup.p_best(comparison)
    best = max(zip(p_best, matchup.images, strict=True))[1] if len(p_best) > 1 else None
    return Order(known[id(comparison)], comparison.shown, p_best, best)


def _truth(run: Run, query_id: str, image_id: str) -> Truth | None:
    relevant = run.relevant(query_id)
    if relevant is None or run.judgments is None:
        return None
    if image_id in relevant:
        return "match"
    return "no match" if image_id in run.judgments[query_id] else "not judged"


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 60 else words[:59] + "…"

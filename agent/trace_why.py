"""Why an image is at its rank: what its score is made of, and what separates it from its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fieldscope.agent.fusion import log_odds
from fieldscope.agent.trace_view import Matchup, View, matchups, ranked_image, verdicts_by_image, weakest
from fieldscope.agent.types import Predicate, RankedCandidate, Reason, RerankResult, Verdict
from fieldscope.core.looks import Look

_NOT_THE_IMAGES_OWN = ("base", "prior", "scorer", "parts", "first_stage")


class Part(View):
    """One thing that a score is made of: the `base`, the `prior`, the `scorer`, a predicate by its id, what closer
    `looks` changed, or the `comparisons`.

    `log_odds` are its contribution to the score or, where `Why.exact` is false, the log-odds of P(expected); None where
    there is no answer.
    """

    source: str
    log_odds: float | None
    predicate: Predicate | None = None
    verdict: Verdict | None = None


class Difference(View):
    """By how many log-odds the image is ahead of its neighbour in one part of the score."""

    source: str
    log_odds: float


class Neighbour(View):
    """The image just above or below, and what separates the two, the greatest difference first.

    `ahead` is the image's score minus the neighbour's.
    """

    image_id: str
    rank: int
    ahead: float
    differences: tuple[Difference, ...]


class LookTaken(View):
    """A closer look at the image, and what was said of it; `changed` is what the looks together added to the score, in
    log-odds."""

    look: Look
    question: str
    verdict: Verdict
    changed: float | None


class Why(View):
    """Everything about one image. `exact` says that the parts sum to the score. `looks` are the closer looks that were
    taken, in their order."""

    sentence: str
    ranked: RankedCandidate
    of: int
    exact: bool
    parts: tuple[Part, ...]
    looks: tuple[LookTaken, ...] = ()
    matchups: tuple[Matchup, ...] = ()
    reason: Reason | None = None
    above: Neighbour | None = None
    below: Neighbour | None = None


def why(result: RerankResult, image_id: str) -> Why:
    """What put the image at its rank. Raises `ConfigError` for one that is not in the ranking."""
    ranked = ranked_image(result, image_id)
    place = result.ranking.index(ranked)
    parts = _parts(result, ranked)
    compared = tuple(c for c in result.comparisons if image_id in c.shown)
    return Why(
        sentence=_sentence(ranked, parts),
        ranked=ranked,
        of=len(result.ranking),
        exact=bool(ranked.contributions),
        parts=parts,
        looks=tuple(_looks(result, ranked)),
        matchups=matchups(compared),
        reason=next((reason for reason in result.reasons if reason.image_id == image_id), None),
        above=_neighbour(result, ranked, place - 1),
        below=_neighbour(result, ranked, place + 1),
    )


def extremes(parts: Sequence[Part]) -> tuple[Part | None, Part | None]:
    """What counts most against an image, and what counts most for it, of all that is its own: predicates with an
    answer, and comparisons. The two may be the same; None where there is nothing."""
    own = [part for part in parts if part.log_odds is not None and part.source not in _NOT_THE_IMAGES_OWN]
    if any(_answered(part) and not _whole(part) for part in own):
        own = [part for part in own if not _whole(part)]  # a part says more than the whole that it belongs to
    lowest = min(own, key=lambda part: part.log_odds or 0.0, default=None)
    highest = max(own, key=lambda part: part.log_odds or 0.0, default=None)
    return lowest, highest


def _parts(result: RerankResult, ranked: RankedCandidate) -> tuple[Part, ...]:
    """The greatest contribution first, whichever its sign; what has none comes last."""
    predicates = {predicate.id: predicate for predicate in result.predicates}
    verdicts = verdicts_by_image(result).get(ranked.image_id, {})
    shares = _shares(result, ranked)
    sources = dict.fromkeys((*shares, *predicates, *verdicts))
    parts = [
        Part(source=s, log_odds=shares.get(s), predicate=predicates.get(s), verdict=verdicts.get(s)) for s in sources
    ]
    return tuple(sorted(parts, key=lambda part: (part.log_odds is None, -abs(part.log_odds or 0.0))))


def _looks(result: RerankResult, ranked: RankedCandidate) -> Iterator[LookTaken]:
    questions = {predicate.id: predicate.question for predicate in result.predicates}
    changed = ranked.contributions.get("looks")
    for verdict in result.verdicts:
        if verdict.image_id == ranked.image_id and verdict.look is not None and verdict.predicate in questions:
            yield LookTaken(look=verdict.look, question=questions[verdict.predicate], verdict=verdict, changed=changed)


def _shares(result: RerankResult, ranked: RankedCandidate) -> dict[str, float]:
    if ranked.contributions:
        return dict(ranked.contributions)
    verdicts = verdicts_by_image(result).get(ranked.image_id, {})
    return {name: _log_odds(v.p_expected) for name, v in verdicts.items() if v.p_expected is not None}


def _log_odds(p: float) -> float:
    return log_odds(min(max(p, 1e-12), 1.0 - 1e-12))


def _neighbour(result: RerankResult, ranked: RankedCandidate, place: int) -> Neighbour | None:
    if not 0 <= place < len(result.ranking):
        return None
    other = result.ranking[place]
    own, its = _shares(result, ranked), _shares(result, other)
    ahead = {source: own[source] - its[source] for source in own if source in its}
    return Neighbour(
        image_id=other.image_id,
        rank=other.rank,
        ahead=ranked.score - other.score,
        differences=tuple(
            Difference(source=source, log_odds=ahead[source])
            for source in sorted(ahead, key=lambda source: -abs(ahead[source]))
            if ahead[source]
        ),
    )


def _answered(part: Part) -> bool:
    return part.verdict is not None and part.verdict.state == "answered"


def _whole(part: Part) -> bool:
    return part.predicate is not None and part.predicate.kind == "query"


def _sentence(ranked: RankedCandidate, parts: tuple[Part, ...]) -> str:
    place = f"ranked {ranked.rank} (prior {ranked.prior_rank})"
    lowest, highest = extremes(parts)
    if ranked.rank > ranked.prior_rank:
        if lowest and (lowest.log_odds or 0.0) < 0:
            return f"{place}: sunk by {_named(lowest)}"
        return f"{place}: nothing speaks against it, but others rose past it"
    if ranked.rank < ranked.prior_rank:
        if highest and (highest.log_odds or 0.0) > 0:
            return f"{place}: raised by {_named(highest)}"
        return f"{place}: nothing speaks for it, but others sank"
    against = weakest(part.verdict for part in parts if part.verdict)
    if against is not None and against.p_expected is None:
        return f"{place}: no question about it was answered"
    if lowest and (lowest.log_odds or 0.0) < 0:
        return f"{place}: not moved; what counts most against it is {_named(lowest)}"
    if highest and (highest.log_odds or 0.0) > 0:
        return f"{place}: not moved; what counts most for it is {_named(highest)}"
    return f"{place}: not moved"


def _named(part: Part) -> str:
    if part.source == "comparisons":
        return "its comparisons with other images"
    if part.source == "looks":
        return "closer looks at it"
    question = part.predicate.question if part.predicate else part.source
    if part.verdict is None or part.verdict.p_yes is None:
        return f'"{question}" (no answer)'
    expected = ", expected no" if part.predicate and part.predicate.expected == "no" else ""
    return f'"{question}" (P(yes) {part.verdict.p_yes:.2f}{expected})'

"""Why one image of a ranking stands above another, whichever two they are."""

from __future__ import annotations

from fieldscope.agent.trace_view import Matchup, View, matchups
from fieldscope.agent.trace_why import Part, why
from fieldscope.agent.types import Predicate, RankedCandidate, RerankResult, Verdict
from fieldscope.core.errors import ConfigError

_NAMES = {
    "prior": "the prior",
    "scorer": "the scorer",
    "looks": "closer looks",
    "comparisons": "comparisons",
    "parts": "how many parts hold",
    "first_stage": "the order of the first stage",
}


class Contrast(View):
    """One part of the score of two images: its `source`, as `Part` has it, and the log-odds, predicate's verdict and
    difference of the two; `ahead` is the upper image's log-odds minus the lower one's, None where one has none."""

    source: str
    predicate: Predicate | None = None
    upper: float | None = None
    lower: float | None = None
    upper_verdict: Verdict | None = None
    lower_verdict: Verdict | None = None

    @property
    def ahead(self) -> float | None:
        return None if self.upper is None or self.lower is None else self.upper - self.lower


class Above(View):
    """What separates two images. `contrasts` begin with the one that counts most for the upper image, and end with what
    can't be compared; where `exact` their differences sum to `ahead`. `matchups` are the comparisons of the two with
    each other."""

    sentence: str
    upper: RankedCandidate
    lower: RankedCandidate
    ahead: float
    exact: bool
    contrasts: tuple[Contrast, ...]
    matchups: tuple[Matchup, ...] = ()


def above(result: RerankResult, one: str, other: str) -> Above:
    """Why the better ranked of two images stands above the other. Raises `ConfigError` for one that is not in the
    ranking, and for twice the same."""
    if one == other:
        raise ConfigError(f"{one!r} can't stand above itself; name another image")
    upper, lower = sorted((why(result, one), why(result, other)), key=lambda found: found.ranked.rank)
    exact = upper.exact and lower.exact
    first = {part.source: part for part in upper.parts}
    second = {part.source: part for part in lower.parts}
    contrasts = [_contrast(first.get(s), second.get(s), exact) for s in dict.fromkeys((*first, *second))]
    contrasts.sort(key=lambda each: (each.ahead is None, -(each.ahead or 0.0)))
    both = tuple(c for c in result.comparisons if {one, other} <= set(c.shown))
    ahead = upper.ranked.score - lower.ranked.score
    return Above(
        sentence=_sentence(upper.ranked, lower.ranked, ahead, contrasts),
        upper=upper.ranked,
        lower=lower.ranked,
        ahead=ahead,
        exact=exact,
        contrasts=tuple(contrasts),
        matchups=matchups(both),
    )


def _contrast(upper: Part | None, lower: Part | None, exact: bool) -> Contrast:
    """`exact`: a part that an image's score does not have adds nothing to it."""
    known = upper or lower
    assert known is not None
    missing = 0.0 if exact else None
    return Contrast(
        source=known.source,
        predicate=(upper and upper.predicate) or (lower and lower.predicate),
        upper=upper.log_odds if upper and upper.log_odds is not None else missing,
        lower=lower.log_odds if lower and lower.log_odds is not None else missing,
        upper_verdict=upper.verdict if upper else None,
        lower_verdict=lower.verdict if lower else None,
    )


def _sentence(upper: RankedCandidate, lower: RankedCandidate, ahead: float, contrasts: list[Contrast]) -> str:
    places = f"{upper.image_id} (rank {upper.rank}) stands above {lower.image_id} (rank {lower.rank})"
    best = contrasts[0] if contrasts and (contrasts[0].ahead or 0.0) > 0 else None
    if best is None:
        return f"{places}; no part of the score says why"
    what = f'"{best.predicate.question}"' if best.predicate else _NAMES.get(best.source, best.source)
    said = f"{places} by {ahead:.3g} log-odds, most of all because of {what} ({best.ahead:+.2f})"
    worst = next((each for each in reversed(contrasts) if each.ahead is not None), best)
    if worst.ahead is not None and worst.ahead < 0:
        against = f'"{worst.predicate.question}"' if worst.predicate else _NAMES.get(worst.source, worst.source)
        said += f", and in spite of {against} ({worst.ahead:+.2f})"
    return said

"""From rankings to relevance scores: strictly between 0 and 1, strictly falling, one for every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fieldscope.agent.fusion import sigmoid
from fieldscope.agent.types import RankedCandidate

LOWEST, HIGHEST = 1e-6, 1.0 - 1e-6
_STEP = 1e-7  # of a score, between documents that would tie: wide enough for a client that reads single precision


def relevances(ranking: Sequence[RankedCandidate]) -> list[float]:
    """A score for each candidate of a ranking: P(match), or the squashed score if the strategy claims no probability. A
    candidate that could not be judged gets a score just below the one above it."""
    claims = any(ranked.p_match is not None for ranked in ranking)
    return falling([ranked.p_match if claims else sigmoid(ranked.score) for ranked in ranking])


def falling(scores: Sequence[float | None]) -> list[float]:
    """The scores within the range of a relevance, with gaps filled and ties broken downwards."""
    strict: list[float] = []
    last = next((score for score in scores if score is not None), 0.5)
    for score in scores:
        below = strict[-1] * (1 - _STEP) if strict else HIGHEST
        last = min(max(last if score is None else score, LOWEST), below)
        strict.append(last)
    return strict


def merged(
    images: Mapping[int, float], texts: Mapping[int, float], last: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """Documents of both kinds as (index, relevance), best first. `images` keep their order; of equal scores images come
    first, then documents in the order of the call. Documents that could not be judged are `last`."""
    place = {index: at for at, index in enumerate((*images, *sorted(texts)))}
    scores = dict(images) | dict(texts)
    order = [*sorted(scores, key=lambda index: (-scores[index], place[index])), *sorted(last)]
    return list(zip(order, falling([scores.get(index, LOWEST) for index in order]), strict=True))

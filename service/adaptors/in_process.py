"""Ranking for an adaptor with a `Reranker`, whose models are loaded in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fieldscope.agent.trace_view import judged_images
from fieldscope.core.errors import ConfigError
from fieldscope.service.adaptors.documents import FoundImage, GivenDocument, RankedDocument
from fieldscope.service.server.api.relevance import merged, relevances
from fieldscope.service.workflows.caller_warnings import warn_caller

if TYPE_CHECKING:
    from fieldscope.service.workflows.blocking import Reranker
    from fieldscope.service.workflows.ranking import Ranking

_NAMED = 5  # documents in a warning


class InProcess:
    """A `Ranker` over a `Reranker`, which judges pictures only: documents without one can't be judged."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    def rerank(self, query: str, documents: Sequence[GivenDocument], top_n: int | None) -> list[RankedDocument]:
        """As `Ranker.rerank`."""
        pictures = {
            str(n): document.picture
            for n, document in enumerate(documents)
            if document.picture is not None and "://" not in str(document.picture)[:32]
        }
        places: dict[int, RankedDocument] = {}
        if pictures:
            ranking = self._reranker.rerank(query, pictures)
            places = {int(placed.image_id): place for placed, place in zip(ranking, _places(ranking), strict=True)}
        last = [n for n in range(len(documents)) if n not in places]
        _warn_unjudged(documents, [n for n in last if str(n) not in pictures])
        order = merged({n: place.score for n, place in places.items()}, {}, last)
        ranked = [
            RankedDocument(n, score, place.judged, place.p_match, place.reason)
            if (place := places.get(n))
            else RankedDocument(n, score, "not judged")
            for n, score in order
        ]
        return ranked[:top_n]

    def search(self, query: str, source: str | None, top_n: int) -> list[FoundImage]:
        """As `Ranker.search`; `source` is the folder of an index."""
        if source is None:
            raise ConfigError("a search in this process needs an index; name the folder that `fieldscope index` made")
        ranking = self._reranker.search(source, query)
        return [
            FoundImage(place, str(image.path or image.image_id))
            for image, place in zip(ranking[:top_n], _places(ranking)[:top_n], strict=True)
        ]


def _places(ranking: Ranking) -> list[RankedDocument]:
    """Each image of a ranking at its place, best first, with a score strictly between 0 and 1."""
    judged = judged_images(ranking.result)
    scores = relevances(ranking.result.ranking)
    return [
        RankedDocument(
            n, score, "picture" if image.image_id in judged else "not judged", image.p_match, image.reason or None
        )
        for n, (image, score) in enumerate(zip(ranking, scores, strict=True))
    ]


def _warn_unjudged(documents: Sequence[GivenDocument], unjudged: Sequence[int]) -> None:
    reasons = [f"document {n} {_why(documents[n])}" for n in unjudged[:_NAMED]]
    more = [f"and {len(unjudged) - _NAMED} more"] if len(unjudged) > _NAMED else []
    if reasons:
        warn_caller([f"ranked last, because they can't be judged: {'; '.join([*reasons, *more])}"])


def _why(document: GivenDocument) -> str:
    if document.fault:
        return f"has no usable picture ({document.fault})"
    if document.picture is None:
        return "has no picture, and texts are judged by a running service only"
    return f"has an address for a picture ({str(document.picture)[:60]}), which only a running service can read"

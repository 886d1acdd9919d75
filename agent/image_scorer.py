"""A scoring model with its memory, over the images of a query's candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fieldscope.agent.scored import CachedScorer
from fieldscope.agent.types import ImageScore
from fieldscope.core.errors import ImageError, one_line
from fieldscope.core.types import ImageSource, Query
from fieldscope.retrieval.encoder import QueryInputs, query_text
from fieldscope.retrieval.scorer import PairScore


class ImageScorer:
    """A `CandidateScorer` over a `CachedScorer`. `images` are those in which a query's reference image lies."""

    def __init__(self, scorer: CachedScorer, images: ImageSource) -> None:
        self._scorer = scorer
        self._images = images

    @property
    def fingerprint(self) -> str:
        return self._scorer.fingerprint

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        """The scorer reads the reference image of a composed query, too, and of a dialogue what was answered."""
        try:
            inputs = await asyncio.to_thread(self._inputs, query, question, instruction or query.instruction)
        except ImageError as error:
            unread = one_line(error)
            return [ImageScore(image_id=image_id, state="unknown", error=unread) for image_id in image_ids]
        judged = await self._scorer.judge(inputs, image_ids)
        return [image_score(image_id, judged[image_id]) for image_id in image_ids]

    def _inputs(self, query: Query, question: str | None, instruction: str | None) -> QueryInputs:
        if question is not None:
            return QueryInputs(question, None, instruction)
        reference = query.reference_image
        picture = None if reference is None else self._images.load(reference)
        return QueryInputs(query_text(query), picture, instruction)


def image_score(image_id: str, pair: PairScore) -> ImageScore:
    """A pair's score as the agent records it."""
    return ImageScore(
        image_id=image_id,
        state="unknown" if pair.value is None else "answered",
        error=pair.error,
        value=pair.value,
        prompt_tokens=pair.tokens,
        cached=pair.cached,
        request_key=pair.key or None,
    )

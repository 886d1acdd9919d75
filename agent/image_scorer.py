"""A scoring model over the images of a collection, asked from worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

from PIL import Image as PILImage

from fieldscope.agent.call import one_line
from fieldscope.agent.types import ImageScore
from fieldscope.core.errors import ImageError, LMMError
from fieldscope.core.types import ImageSource, Query
from fieldscope.retrieval.encoder import QueryInputs, query_text
from fieldscope.retrieval.scorer import Scorer

_AT_ONCE = 8  # images in memory


class ImageScorer:
    """A `CandidateScorer` that remembers nothing."""

    def __init__(self, scorer: Scorer, images: ImageSource) -> None:
        self._scorer = scorer
        self._images = images

    @property
    def fingerprint(self) -> str:
        return self._scorer.fingerprint

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        """The reference image of a composed query is read by the scorer, too. Where the scorer's server does not
        answer, the images are unknown."""
        return await asyncio.to_thread(self._scores, query, image_ids, question, instruction)

    def _scores(
        self, query: Query, image_ids: Sequence[str], question: str | None, instruction: str | None
    ) -> list[ImageScore]:
        try:
            inputs = self._inputs(query, question, instruction)
        except ImageError as error:
            return [_unknown(image_id, one_line(error)) for image_id in image_ids]
        scores: list[ImageScore] = []
        for start in range(0, len(image_ids), _AT_ONCE):
            scores += self._some(inputs, image_ids[start : start + _AT_ONCE])
        return scores

    def _inputs(self, query: Query, question: str | None, instruction: str | None) -> QueryInputs:
        if question is not None:
            return QueryInputs(question, None, instruction)
        reference = query.reference_image
        return QueryInputs(query_text(query), None if reference is None else self._images.load(reference), instruction)

    def _some(self, inputs: QueryInputs, image_ids: Sequence[str]) -> list[ImageScore]:
        pictures: dict[str, PILImage.Image] = {}
        errors: dict[str, str] = {}
        for image_id in image_ids:
            try:
                pictures[image_id] = self._images.load(image_id)
            except ImageError as error:
                errors[image_id] = one_line(error)
        began = perf_counter()
        values: dict[str, float | None] = {}
        try:
            values = dict(zip(pictures, self._scorer.score(inputs, list(pictures.values())), strict=True))
        except LMMError as error:
            errors |= dict.fromkeys(pictures, one_line(error))
        seconds = (perf_counter() - began) / max(len(pictures), 1)
        scores = []
        for image_id in image_ids:
            value = values.get(image_id)
            if value is None:
                scores.append(_unknown(image_id, errors.get(image_id, "the scorer gave no score")))
            else:
                scores.append(ImageScore(image_id=image_id, state="answered", value=value, latency=seconds))
        return scores


def _unknown(image_id: str, error: str) -> ImageScore:
    return ImageScore(image_id=image_id, state="unknown", error=error)

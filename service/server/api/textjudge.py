"""What the models say of a call's texts: a query that is only an image, in words, and the documents that are texts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fieldscope.agent.budget import Account, BudgetedLMM
from fieldscope.agent.call import image_parts
from fieldscope.agent.image_scorer import image_score
from fieldscope.agent.nodes.synthesize import caption_image
from fieldscope.agent.types import Call
from fieldscope.core.types import Query
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.models import Models
from fieldscope.service.server.api.texts import Judged, judge_texts
from fieldscope.service.server.api.vectors import ResidentImages, Vectoriser

if TYPE_CHECKING:
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.query_stages import Synthesize
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.prompts.prompt_set import PromptSet


class TextJudge:
    """Asks the service's models about texts, at most `at_once` questions of a call at once."""

    def __init__(self, models: Models, images: ResidentImages, prompts: PromptSet, at_once: int) -> None:
        self._models = models
        self._images = images
        self._prompts = prompts
        self._at_once = at_once

    async def described(self, query: Query, settings: Synthesize, account: Account) -> tuple[Query, tuple[Call, ...]]:
        """A query that is only an image, described in words by the LMM, whose questions are about words. Raises
        `ApiError` (503) where the LMM does not describe it."""
        assert query.reference_image is not None
        lmm = BudgetedLMM(self._models.lmm("captioner"), account)
        call = await caption_image(lmm, query.reference_image, settings, self._images)
        if call.state == "unknown":
            raise ApiError(
                503,
                "lmm_failed",
                f"the LMM did not describe the query's image: {call.error}. Try again, or add words to the query",
            )
        return query.model_copy(update={"text": call.text, "reference_image": None}), (call,)

    async def judged(
        self, query: Query, texts: Mapping[str, str], strategy: Strategy, vectors: Vectoriser | None, account: Account
    ) -> Judged:
        """The texts' priors, if `vectors` are given, and the LMM's verdicts, if the strategy asks."""
        if not texts:
            return Judged()
        readable = self._models.readable(texts)
        instruction = strategy.retrieve.instruction
        priors = await vectors.text_priors(query, readable, instruction) if vectors is not None else {}
        if not strategy.prompts:
            return Judged(tuple(texts), (), priors)
        shown = query.reference_image
        image = (await image_parts(self._images, [shown]))[0] if shown is not None else None
        lmm = BudgetedLMM(self._models.lmm("verifier"), account)
        verdicts = await judge_texts(lmm, query.text, texts, self._prompts, image=image, at_once=self._at_once)
        return Judged(tuple(texts), verdicts, priors)

    async def scored(self, query: Query, texts: Mapping[str, str], scorer: CachedScorer, strategy: Strategy) -> Judged:
        """The scoring model's scores of the texts."""
        assert strategy.score is not None
        shown = query.reference_image
        picture = await asyncio.to_thread(self._images.load, shown) if shown is not None else None
        pairs = await scorer.judge_texts(QueryInputs(query.text, picture, strategy.score.instruction), texts)
        return Judged(tuple(texts), scored=tuple(image_score(document, pair) for document, pair in pairs.items()))

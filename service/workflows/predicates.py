"""The predicates that a model derives from a query, before any image is asked about."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fieldscope.service.workflows.models import Models

if TYPE_CHECKING:
    from fieldscope.agent.graph import Derived
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import Query


async def derive_predicates(query: Query, strategy: Strategy, models: Models) -> Derived:
    """Ask the LMM what it would ask about each image. The response cache keeps its answers, so a ranking of the same
    query does not ask again. Raises `ConfigError` for a strategy that asks no predicates, `VocabularyError` for words
    that a bundled model does not know, and what the server's check raises."""
    from fieldscope.agent.graph import Agent
    from fieldscope.agent.resources import Resources
    from fieldscope.retrieval.collection import FilesCollection

    models.require_words(strategy, query)
    await models.require_context(strategy, query)
    images = FilesCollection({})
    text_only = strategy.model_copy(update={"score": None, "inspect": None})
    async with AsyncExitStack() as stack:
        lmms = await stack.enter_async_context(models.open_lmms(images, strategy))
        return await Agent(Resources(images, lmm=lmms), text_only).derive(query)

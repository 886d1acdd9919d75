"""One query over candidates, from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from core.errors import ConfigError, LMMError
from service.console import keeping
from service.settings import Settings
from service.wiring import open_lmm

if TYPE_CHECKING:
    from agent.strategies.strategy import Strategy
    from agent.types import RerankResult
    from core.types import Candidate, ImageSource, Query


def make_query(text: str) -> Query:
    """Raises `ConfigError` for a text without words, or one that is not Unicode."""
    from core.types import Query

    text = " ".join(text.split())
    if not text or not all(character.isprintable() for character in text):
        raise ConfigError("the query must be words in UTF-8; say what the pictures should show")
    return Query(id="query", text=text)


def rerank_once(
    query: Query,
    candidates: Sequence[Candidate],
    images: ImageSource,
    strategy: Strategy,
    settings: Settings,
    flags: Sequence[str] = (),
) -> RerankResult:
    """The candidates reranked under a strategy, with the bundled LMM or the settings' server where it asks one."""
    with keeping("answers so far are in the cache, and the same command finds them there"):
        return asyncio.run(_rerank(query, candidates, images, strategy, settings, flags))


async def _rerank(
    query: Query,
    candidates: Sequence[Candidate],
    images: ImageSource,
    strategy: Strategy,
    settings: Settings,
    flags: Sequence[str],
) -> RerankResult:
    from agent.deps import Deps
    from agent.graph import Agent

    async with AsyncExitStack() as stack:
        lmm = await stack.enter_async_context(open_lmm(settings, images)) if strategy.prompts else None
        deps = Deps(images=images, lmm=lmm, max_concurrency=settings.concurrency, flags=tuple(flags))
        return await Agent(deps, strategy).rerank(query, candidates)


def require_verdicts(result: RerankResult) -> None:
    """Raise `LMMError` where the model was asked and gave no verdict at all: the ranking is the prior's then."""
    asked = [verdict for verdict in result.verdicts if verdict.state != "not_asked"]
    if asked and all(verdict.state == "unknown" for verdict in asked):
        raise LMMError(
            f"none of {len(asked)} calls gave a verdict ({asked[0].error}), so this is the first stage's order; mend "
            "the model or its server and give the same command again"
        )

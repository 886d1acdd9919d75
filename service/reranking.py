"""One query over candidates, from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from core.errors import ConfigError, LMMError
from service.calibrations import find_calibration
from service.console import keeping, warn
from service.settings import Settings
from service.wiring import open_lmm

if TYPE_CHECKING:
    from agent.budget import Budget
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
    budget: Budget | None = None,
    encoder: str | None = None,
) -> RerankResult:
    """The candidates reranked under a strategy, with the bundled LMM or the settings' server where it asks one.

    `encoder` is the fingerprint of the CLIP that their priors come from, if any did.
    """
    with keeping("answers so far are in the cache, and the same command finds them there"):
        return asyncio.run(_rerank(query, candidates, images, strategy, settings, flags, budget, encoder))


async def _rerank(
    query: Query,
    candidates: Sequence[Candidate],
    images: ImageSource,
    strategy: Strategy,
    settings: Settings,
    flags: Sequence[str],
    budget: Budget | None,
    encoder: str | None,
) -> RerankResult:
    from agent.deps import Deps
    from agent.graph import Agent

    async with AsyncExitStack() as stack:
        lmm = await stack.enter_async_context(open_lmm(settings, images)) if strategy.prompts else None
        calibration = find_calibration(lmm.identity if lmm else None, strategy, encoder)
        deps = Deps(images, lmm, None, settings.concurrency, calibration, tuple(flags))
        return await Agent(deps, strategy).rerank(query, candidates, budget=budget)


def warn_of_end(result: RerankResult) -> None:
    """Say where a budget ended the work."""
    if result.ended:
        warn(f"the budget ended the work in the stage {result.ended!r}; the ranking stands on what was known by then")


def require_verdicts(result: RerankResult) -> None:
    """Raise `LMMError` where the model was asked about candidates and said nothing at all of them: the ranking is the
    prior's then."""
    asked = [each for each in (*result.verdicts, *result.comparisons) if each.state != "not_asked"]
    if asked and all(each.state == "unknown" for each in asked):
        raise LMMError(
            f"none of {len(asked)} questions about the images got an answer ({asked[0].error}), so this is the first "
            "stage's order; mend the model or its server and give the same command again"
        )

"""From settings to a scoring model over the response cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.service.wiring import interruption
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.models import image_encoding, load_scorer, open_store
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.image_scorer import ImageScorer
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.cache.store import AsyncCacheStore
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.scorer import Scorer
    from fieldscope.retrieval.served_scorer import ServedScorer

_PATIENCE = 3.0  # seconds that a service waits for its server before it starts without it
_told: set[str] = set()  # fingerprints of scorers that a warning was given about

_SHAPES = {
    "parts": "as content parts, as vLLM takes them",
    "parts-object": "as content parts, as an older vLLM takes them",
    "jina": "as Jina's objects",
    "jina-base64": "as Jina's objects, in plain base64",
}


@asynccontextmanager
async def open_scorer(
    settings: Settings, images: ImageSource, given: Scorer | None = None, may_be_away: bool = False
) -> AsyncIterator[CachedScorer]:
    """The settings' scoring model, or `given` in its place, over the response cache; closed in the end.

    A server is asked what it serves and in which form it takes a request, and what was found out is said; in a replay
    nothing is asked. A server that `may_be_away` is asked with the first pair where it does not answer now. Raises
    `ConfigError`, `CacheError`, and `LMMError` for a server that does not answer.
    """
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.retrieval.served_scorer import ServedScorer

    async with open_store(settings) as store:
        scorer = given
        if scorer is None and settings.cache_mode == "replay":
            scorer = await _recorded(settings, store)
        if scorer is None:
            scorer = await asyncio.to_thread(load_scorer, settings.scorer or "", settings)
        cached = CachedScorer(scorer, store, images, settings.cache_mode)
        try:
            with suppress(*(LMMError, TimeoutError) if may_be_away else ()):
                async with asyncio.timeout(_PATIENCE if may_be_away else None):
                    await cached.identify()
                if isinstance(scorer, ServedScorer):
                    _tell(scorer)
            yield cached
        finally:
            await cached.aclose(interruption.GRACE * interruption.FOR_CALLS)
            if isinstance(scorer, ServedScorer):
                scorer.close()


@asynccontextmanager
async def open_candidate_scorer(
    settings: Settings, images: ImageSource, strategies: Sequence[Strategy]
) -> AsyncIterator[ImageScorer | None]:
    """The settings' scoring model for the agent, where any of the strategies uses one; None where none does. Raises
    what `open_scorer` does."""
    from fieldscope.agent.image_scorer import ImageScorer

    if not any(map(uses_scorer, strategies)):
        yield None
        return
    async with open_scorer(settings, images) as scorer:
        yield ImageScorer(scorer, images)


def uses_scorer(strategy: Strategy) -> bool:
    """Whether a strategy has a stage that asks a scoring model."""
    return "score" in strategy.stages


def require_scorer(strategies: Sequence[Strategy], given: bool) -> None:
    """Raise `ConfigError` where a strategy needs a scoring model and none is `given`, or none of them uses the one that
    is."""
    from fieldscope.agent.nodes.score import no_scorer

    using = [strategy.name for strategy in strategies if uses_scorer(strategy)]
    if using and not given:
        raise no_scorer(using[0])
    if given and not using:
        names = ", ".join(repr(strategy.name) for strategy in strategies)
        raise ConfigError(
            f"no stage of {names} uses the scoring model; take a strategy with a stage `score`, such as cross-encoder, "
            "or leave --scorer out"
        )


async def _recorded(settings: Settings, store: AsyncCacheStore) -> Scorer | None:
    """What stands in a replay for a scorer behind a server: the one of this model that has scores in the store. None
    for a scorer in this process. Raises `ConfigError` where there are several."""
    from fieldscope.agent.scored import RecordedScorer
    from fieldscope.retrieval.scorer import SCORERS

    name = settings.scorer or ""
    kind, argument = SCORERS.split(name, "openai" if "://" in name else "")
    if kind != "openai":
        return None
    named = f"scorer:{argument.partition('#')[2]}#{image_encoding(settings).name}#"
    known = [model for model in (await store.stats()).models if model.startswith(named)]
    if len(known) > 1:
        raise ConfigError(
            f"the response cache has scores of {len(known)} servers for {name} ({'; '.join(sorted(known))}); remove "
            "the others with `fieldscope cache prune --model`"
        )
    return RecordedScorer(known[0] if known else named)


def _tell(scorer: ServedScorer) -> None:
    """Say what was found out of a server, where it was asked just now."""
    from fieldscope.core.server_facts import WEIGHTS

    found, model, server = scorer.found, scorer.server.model, scorer.server.url
    if not scorer.server.facts().keys() & set(WEIGHTS) and scorer.fingerprint not in _told:
        _told.add(scorer.fingerprint)
        warn(
            f"{server} does not report which weights it serves as {model}; if they change under that name, ask again "
            "with --cache refresh"
        )
    if found is None or not found.asked:
        return
    if not found.form.takes_pictures:
        note(f"The scorer {model} takes texts only, at {server}{found.form.path}.")
        return
    note(f"The scorer {model} gets images {_SHAPES[found.form.shape]}, at {server}{found.form.path}.")
    if not found.counts_tokens:
        warn(
            f"{server} does not count tokens, so it can't be seen whether {model} gets images or the letters of their "
            "addresses. Check it with `fieldscope doctor --scorer`"
        )
    if not found.tells_apart:
        warn(
            f"{model} gave two images that have nothing in common the same score, so it may not see them. Check it "
            "with `fieldscope doctor --scorer`"
        )

"""From settings to the LMM of each role, and to the servers that must be there for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fieldscope.service.wiring.models import cached_lmm, closing_lmms, open_store, probe_server
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.lmm.cached import CachedLMM
    from fieldscope.agent.roles import LMMs, Role
    from fieldscope.core.types import ImageSource


def require_servers(settings: Settings, roles: Collection[Role]) -> dict[Role, int]:
    """How many tokens the contexts of the LMMs with these roles have, where a server is asked and says so.

    Raises `LMMError` before any work where a server does not answer, or serves another model. A replay asks no server.
    A server without a list of models is accepted.
    """
    if settings.cache_mode == "replay" or not any(chosen.asks_server for chosen in settings.by_model(roles)):
        return {}
    return asyncio.run(probe_servers(settings, roles))


async def probe_servers(settings: Settings, roles: Collection[Role]) -> dict[Role, int]:
    """`require_servers` for callers with an event loop of their own."""
    contexts: dict[Role, int] = {}
    for chosen, having in settings.by_model(roles).items():
        context = await probe_server(chosen) if settings.cache_mode != "replay" else None
        if context is not None:
            contexts |= dict.fromkeys(having, context)
    return contexts


@asynccontextmanager
async def open_lmms(
    settings: Settings,
    images: ImageSource,
    roles: Collection[Role],
    lmms: LMM | LMMs | None = None,
    wrappers: Iterable[Callable[[LMM], LMM]] = (),
    may_be_away: bool = False,
    load: bool = True,
) -> AsyncIterator[LMMs]:
    """The LMM of each of these roles over one response cache, closed in the end. Roles with the same settings share an
    LMM. `lmms` stand in for those that the settings name: one for all roles that the settings do not name, or those of
    single roles. Without `load` a model is loaded with the first call that the cache does not answer. Otherwise as
    `open_lmm`."""
    from fieldscope.agent.roles import LMMs

    given = LMMs.of(lmms)
    async with open_store(settings) as store, closing_lmms() as opened:
        models: dict[Settings | int, CachedLMM] = {}
        own: dict[Role, LMM] = {}
        for role in roles:
            chosen = settings.of(role)
            lmm = given.own.get(role) or (None if role in settings.roles else given.shared)
            key = chosen if lmm is None else id(lmm)
            if key not in models:
                models[key] = await cached_lmm(chosen, store, images, lmm, wrappers, may_be_away, load)
                opened[models[key]] = chosen
            own[role] = models[key]
        yield LMMs(next(iter(models.values()))) if len(models) == 1 else LMMs(None, own)


async def drain(lmms: LMMs, patience: float) -> None:
    """Wait at most `patience` seconds for what is in flight, and give up what has no answer by then."""
    from fieldscope.agent.lmm.cached import CachedLMM

    await asyncio.gather(*(lmm.drain(patience) for lmm in lmms.distinct() if isinstance(lmm, CachedLMM)))

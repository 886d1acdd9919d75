"""From settings to models, stores and the graph's dependencies: the only place that knows what `bundled` means."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any

from fieldscope.core.errors import ConfigError, LMMError, LMMRequestError, LMMServerError
from fieldscope.service.wiring import interruption as running
from fieldscope.service.wiring.bundled import BUNDLED_DTYPE, bundled_folder, bundled_identity
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.lmm.cached import CachedLMM
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.agent.lmm.server_facts import Served
    from fieldscope.cache.store import CacheStore
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Encoder


_NO_MODEL_LIST = {404, 405, 501}
_PATIENCE = 3.0  # seconds that a service waits for its server before it starts without
_warned: set[tuple[str, str]] = set()  # servers and models of which it was said that they tell nothing


def load_encoder(settings: Settings) -> Encoder:
    """The CLIP of the first stage. Raises `ConfigError` where it can't be loaded."""
    name = settings.clip or str(bundled_folder("clip"))
    _prepare_libraries(downloads=settings.clip is not None)
    from fieldscope.retrieval.clip import ClipEncoder

    return ClipEncoder.load(name)


def bundled_lmm(images: ImageSource) -> LMM:
    """The bundled LMM, in this process."""
    folder = bundled_folder("lmm")
    _prepare_libraries(downloads=False)
    from fieldscope.agent.lmm.local import LocalLMM

    return LocalLMM.from_path(folder, images, dtype=BUNDLED_DTYPE)


def is_lmm_of(identity: str, settings: Settings) -> bool:
    """Whether these settings lead to the LMM of this identity. Weights are not looked at: the bundled one is local."""
    if settings.lmm_url is None:
        return identity.startswith("local:")
    from fieldscope.agent.lmm.identity import named_identity

    return named_identity(identity) == _named(settings)


def require_server(settings: Settings) -> int | None:
    """How many tokens the model's context has, where a server is named and says so.

    Raises `LMMError` before any work where it is not there, or serves another model. Replay asks no server. One that
    keeps no list of models is given the benefit of the doubt.
    """
    if settings.lmm_url and settings.cache_mode != "replay":
        return asyncio.run(probe_server(settings))
    return None


@asynccontextmanager
async def open_lmm(
    settings: Settings,
    images: ImageSource,
    lmm: LMM | None = None,
    doors: Iterable[Callable[[LMM], LMM]] = (),
    may_be_away: bool = False,
) -> AsyncIterator[CachedLMM]:
    """The LMM over the response cache, closed in the end; `lmm` stands in for the one that the settings name, and
    whatever goes past the cache to it goes through `doors`. Where the work is interrupted or fails, calls
    in flight have some seconds, so that answers that were paid for are kept.

    A server is asked what it tells of the model, which belongs to the model's identity; one that `may_be_away` is asked
    with the first call where it does not answer now. Raises `ConfigError`, `CacheError`, and `LMMError` for a server
    that does not answer.
    """
    from fieldscope.agent.lmm.cached import CachedLMM

    with closing(_store(settings)) as store:
        model = lmm or (_remembered(settings, store) if settings.cache_mode == "replay" else _lmm(settings, images))
        identify = _identifier(model, settings) if lmm is None and settings.asks_server else None
        if identify is not None:
            with suppress(*(LMMError, TimeoutError) if may_be_away else ()):
                async with asyncio.timeout(_PATIENCE if may_be_away else None):
                    await identify()
        for door in doors:
            model = door(model)
        cached = CachedLMM(model, store, settings.cache_mode, identify)
        try:
            yield cached
        except BaseException:
            await cached.drain(running.GRACE * running.FOR_CALLS)
            raise
        finally:
            await cached.drain(0.0)  # what a deadline gave up is not waited for
            await cached.aclose()
            if cached.inherited:
                note(
                    f"{cached.inherited:,} remembered answers of {settings.model} do not say more of the server than "
                    "this name; if it served another model then, ask again with --cache refresh"
                )


@asynccontextmanager
async def open_bare_lmm(settings: Settings, images: ImageSource) -> AsyncIterator[LMM]:
    """The LMM without the response cache, so that every call reaches it, and with one more attempt at most, so that
    its failures show. Closed in the end. Raises `ConfigError`."""
    lmm = _lmm(settings, images, attempts=2)
    try:
        yield lmm
    finally:
        await lmm.aclose()


async def check_served(lmm: OpenAILMM) -> Served:
    """What the server's list of models says of the model; nothing where it keeps none. Raises an `LMMError` where the
    server is not there, or serves other models."""
    from fieldscope.agent.lmm.server_facts import Served

    try:
        return await lmm.check()
    except (LMMRequestError, LMMServerError) as error:
        if getattr(error.__cause__, "status_code", None) not in _NO_MODEL_LIST:
            raise
        return Served(listed=False)


def _store(settings: Settings) -> CacheStore:
    if settings.cache_mode == "off":
        from fieldscope.cache.store import MemoryStore

        return MemoryStore()
    from fieldscope.cache.sqlite import SqliteStore

    return SqliteStore(settings.store_path)


def _lmm(settings: Settings, images: ImageSource, **options: Any) -> LMM:
    """The LMM of these settings. `options` are those of the door to a server, beside what the settings say."""
    if settings.lmm_url is None or settings.model is None:
        return bundled_lmm(images)
    from fieldscope.agent.lmm.openai import OpenAILMM

    return OpenAILMM(
        settings.lmm_url,
        settings.model,
        images,
        api_key=settings.api_key,
        revision=settings.revision,
        max_side=settings.max_side,
        max_concurrency=settings.concurrency,
        timeout=settings.request_timeout,
        **{"attempts": settings.attempts, **options},
    )


def _named(settings: Settings) -> str:
    """The identity of the settings' server's model, without what the server tells."""
    from fieldscope.agent.lmm.identity import server_identity

    return server_identity(settings.model or "", settings.revision, settings.max_side)


def _remembered(settings: Settings, store: CacheStore) -> LMM:
    """What stands for the model in a replay, which asks nothing, so that an identity is enough: the bundled model's, or
    the one that the settings' model has in the store. Raises `ConfigError` where it has several there."""
    from fieldscope.agent.lmm.identity import named_identity
    from fieldscope.eval.runs.replay import RecordedLMM

    if not settings.asks_server:
        return RecordedLMM(bundled_identity(), {}, {})
    named = _named(settings)
    told = [model for model in store.stats().models if named_identity(model) == named != model]
    if len(told) > 1:
        raise ConfigError(
            f"the response cache has answers of {len(told)} servers for {settings.model} ({'; '.join(sorted(told))}); "
            "replay a run of one of them with --replay RUN, or remove the others with `fieldscope cache prune --model`"
        )
    return RecordedLMM(told[0] if told else named, {}, {})


def _identifier(model: LMM, settings: Settings) -> Callable[[], Awaitable[None]] | None:
    """What asks a server for all that it tells of the model, and says once where that is nothing; None in a replay."""
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.agent.lmm.server_facts import WEIGHTS

    if not isinstance(model, OpenAILMM):
        return None

    async def identify() -> None:
        facts = await model.identify()
        server = (model.url, model.model)
        if settings.revision is None and not facts.keys() & set(WEIGHTS) and server not in _warned:
            _warned.add(server)
            warn(
                f"{model.url} does not tell which weights it serves as {model.model}; if they may change under that "
                "name, name them with --revision, so that answers of one are not taken for the other's"
            )

    return identify


async def probe_server(settings: Settings) -> int | None:
    """How many tokens the model's context has, where the settings' server says so. Raises what `check_served` does."""
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.retrieval.collection import FilesCollection

    lmm = OpenAILMM(
        settings.lmm_url or "",
        settings.model or "",
        FilesCollection({}),
        api_key=settings.api_key,
        timeout=settings.request_timeout,
    )
    try:
        return (await check_served(lmm)).context
    finally:
        await lmm.aclose()


def _prepare_libraries(downloads: bool) -> None:
    """Settings that torch and transformers read when they are imported; the user's own stay.

    Threads that wait for work shall sleep: by default they spin, and beside any other load on the machine that makes
    small models several times slower. The libraries' own progress bars are for downloads that somebody watches.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not (downloads and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

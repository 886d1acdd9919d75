"""From settings to models and stores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, cast

from fieldscope.core.errors import ConfigError, LMMError, LMMRequestError, LMMServerError
from fieldscope.service.wiring import interruption as running
from fieldscope.service.wiring.bundled import bundled_identity
from fieldscope.service.wiring.feedback import note, warn
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.lmm.cached import CachedLMM
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.cache.store import AsyncCacheStore, CacheStore
    from fieldscope.core.image_encoding import ImageEncoding
    from fieldscope.core.server_facts import Served
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.scorer import Scorer
    from fieldscope.retrieval.served_encoder import ServedEncoder
    from fieldscope.retrieval.served_scorer import ServedScorer
    from fieldscope.retrieval.server import ModelServer

_NO_MODEL_LIST = {404, 405, 501}
_PATIENCE = 3.0  # seconds that a service waits for its server before it starts without it
_warned: set[tuple[str, str]] = set()  # servers and models that a warning was given about


def load_encoder(settings: Settings) -> Encoder:
    """The encoder of the first stage. Raises `ConfigError` where it can't be loaded."""
    _prepare_libraries(downloads=settings.encoder is not None)
    from fieldscope.retrieval.encoder import ENCODERS, split_encoder

    kind, argument = split_encoder(settings.encoder or "bundled")
    return _served_encoder(argument, settings) if kind == "openai" else ENCODERS.load(kind)(argument)


def _served_encoder(argument: str, settings: Settings) -> ServedEncoder:
    from fieldscope.retrieval.served_encoder import KEY_VARIABLE, OPTION, ServedEncoder

    return ServedEncoder(_model_server(argument, OPTION, KEY_VARIABLE, settings), warn)


def _model_server(argument: str, option: str, key_variable: str, settings: Settings) -> ModelServer:
    """The server of the model that URL#MODEL in an `option` means, asked as the settings say."""
    from fieldscope.retrieval.server import ModelServer, split_model

    url, model = split_model(argument, option)
    return ModelServer(
        url,
        model,
        option,
        api_key=settings.key_for(url, key_variable),
        key_variable=key_variable,
        concurrency=settings.concurrency,
        timeout=settings.request_timeout,
        attempts=settings.attempts,
    )


def load_scorer(name: str, settings: Settings) -> Scorer:
    """The scoring model that URL#MODEL, `path:FOLDER`, `name` or `name:argument` means; one behind a server is asked as
    the settings say. Raises `ConfigError` where it can't be loaded."""
    _prepare_libraries(downloads=True)
    from fieldscope.retrieval.scorer import SCORERS

    kind, argument = SCORERS.split(name, "openai" if "://" in name else "")
    if kind == "openai":
        return _served_scorer(argument, settings)
    return SCORERS.load(kind or name)(argument, lambda: load_encoder(settings))


def _served_scorer(argument: str, settings: Settings) -> ServedScorer:
    from fieldscope.retrieval.served_scorer import KEY_VARIABLE, OPTION, ServedScorer

    return ServedScorer(_model_server(argument, OPTION, KEY_VARIABLE, settings), image_encoding(settings))


def image_encoding(settings: Settings) -> ImageEncoding:
    """How pictures are sent to a server."""
    from fieldscope.core.image_encoding import ImageEncoding

    return ImageEncoding(settings.image_format, settings.max_side, settings.max_pixels)


def bundled_lmm(images: ImageSource) -> LMM:
    """The bundled LMM, in this process."""
    return _open_backend("bundled", "", images, Settings())


def is_lmm_of(identity: str, settings: Settings) -> bool:
    """Whether these settings lead to the LMM of this identity. Weights are not looked at: the bundled one is local."""
    if not settings.asks_server:
        return settings.lmm_url is None and identity.startswith("local:")
    from fieldscope.agent.lmm.identity import named_identity

    return named_identity(identity) == _named(settings)


@asynccontextmanager
async def open_lmm(settings: Settings, images: ImageSource) -> AsyncIterator[CachedLMM]:
    """The LMM over the response cache, closed in the end. Where the work is interrupted or fails, calls in flight have
    some seconds, so that answers that were paid for are kept. Roles are not looked at (`Settings.of`).

    A server is asked what it tells of the model, which belongs to the model's identity. Raises `ConfigError`,
    `CacheError`, and `LMMError` for a server that does not answer.
    """
    async with open_store(settings) as store, closing_lmms() as opened:
        cached = await cached_lmm(settings, store, images)
        opened[cached] = settings
        yield cached


@asynccontextmanager
async def closing_lmms() -> AsyncIterator[dict[CachedLMM, Settings]]:
    """Closes the LMMs that are put into what it yields, with their settings."""
    opened: dict[CachedLMM, Settings] = {}
    try:
        yield opened
    except BaseException:
        await _drain(opened, running.GRACE * running.FOR_CALLS)
        raise
    finally:
        await _drain(opened, 0.0)  # what a deadline gave up is not waited for
        for cached, chosen in opened.items():
            await cached.aclose()
            if cached.inherited:
                note(
                    f"{cached.inherited:,} remembered answers of {chosen.model} do not say more of the server than "
                    "this name; if it served another model then, ask again with --cache refresh"
                )


async def _drain(lmms: Iterable[CachedLMM], patience: float) -> None:
    await asyncio.gather(*(lmm.drain(patience) for lmm in lmms))


async def cached_lmm(
    settings: Settings,
    store: AsyncCacheStore,
    images: ImageSource,
    lmm: LMM | None = None,
    wrappers: Iterable[Callable[[LMM], LMM]] = (),
    may_be_away: bool = False,
    load: bool = True,
) -> CachedLMM:
    """The LMM of these settings, or `lmm` in its place, over the store; calls that the store does not answer go through
    `wrappers`. A server that `may_be_away` is asked about its model with the first call where it does not answer now.
    Without `load` a model that is known by its files is loaded with the first such call.
    """
    from fieldscope.agent.lmm.cached import Adapts, CachedLMM
    from fieldscope.agent.lmm.deferred import DeferredLMM

    replays = settings.cache_mode == "replay"
    model = lmm or (await _remembered(settings, store, images) if replays else _lmm(settings, images))
    identify = _identifier(model, settings) if lmm is None and settings.asks_server else None
    if identify is not None:
        with suppress(*(LMMError, TimeoutError) if may_be_away else ()):
            async with asyncio.timeout(_PATIENCE if may_be_away else None):
                await identify()
    if load and isinstance(model, DeferredLMM):
        await model.loaded()
    stands = model.stands if isinstance(model, Adapts) else None
    for wrap in wrappers:
        model = wrap(model)
    return CachedLMM(model, store, settings.cache_mode, identify, stands)


@asynccontextmanager
async def open_bare_lmm(settings: Settings, images: ImageSource) -> AsyncIterator[LMM]:
    """The LMM without the response cache, so that every call reaches it, and with one more attempt at most, so that
    its failures show. Closed in the end. Raises `ConfigError`."""
    from fieldscope.agent.lmm.deferred import DeferredLMM

    lmm = _lmm(settings, images, attempts=2)
    if isinstance(lmm, DeferredLMM):
        lmm = await lmm.loaded()
    try:
        yield lmm
    finally:
        await lmm.aclose()


async def check_served(lmm: OpenAILMM) -> Served:
    """What the server's list of models says of the model; nothing where it keeps none. Raises an `LMMError` where the
    server is not there, or serves other models."""
    from fieldscope.core.server_facts import Served

    try:
        return await lmm.check()
    except (LMMRequestError, LMMServerError) as error:
        if getattr(error.__cause__, "status_code", None) not in _NO_MODEL_LIST:
            raise
        return Served(listed=False)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[AsyncCacheStore]:
    """The response cache: a file, or the store that `name:argument` means in place of the file or in FIELDSCOPE_STORE.
    Raises `ConfigError` and `CacheError`."""
    from fieldscope.cache.store import STORES, is_async
    from fieldscope.cache.writer import as_async

    named = str(settings.cache_file or os.environ.get("FIELDSCOPE_STORE") or settings.store_path)
    kind, argument = ("memory", "") if settings.cache_mode == "off" else STORES.split(named, "sqlite")
    store = STORES.load(kind)(argument)
    try:
        yield as_async(store)
    finally:
        if is_async(store):
            await store.aclose()
        else:
            cast("CacheStore", store).close()


def _lmm(settings: Settings, images: ImageSource, attempts: int | None = None) -> LMM:
    """The LMM of these settings, with fewer `attempts` for a call where given."""
    if settings.lmm_url is None:
        return bundled_lmm(images)
    return _open_backend(*settings.backend, images, replace(settings, attempts=attempts or settings.attempts))


def _open_backend(name: str, argument: str, images: ImageSource, settings: Settings) -> LMM:
    from fieldscope.agent.lmm.backends import LMMS, LMMOptions

    _prepare_libraries(downloads=False)
    chosen = {option.name: getattr(settings, option.name) for option in fields(LMMOptions) if option.name != "images"}
    return LMMS.load(name)(argument, LMMOptions(images, **chosen))


def _named(settings: Settings) -> str:
    """The identity of the settings' server's model, without what the server tells."""
    from fieldscope.agent.lmm.identity import server_identity

    return server_identity(
        settings.model or "",
        settings.revision,
        settings.max_side,
        max_pixels=settings.max_pixels,
        image_format=settings.image_format,
    )


async def _remembered(settings: Settings, store: AsyncCacheStore, images: ImageSource) -> LMM:
    """What stands for the model in a replay, which asks nothing: only its identity is needed. That is the bundled
    model's, the back end's own, or the one that the server's model has in the store.

    Raises `ConfigError` where a server's model has several identities there.
    """
    from fieldscope.agent.lmm.identity import named_identity, sent_otherwise
    from fieldscope.eval.runs.replay import RecordedLMM

    if settings.lmm_url is None:
        return RecordedLMM(bundled_identity(), {}, {})
    if not settings.asks_server:
        return _lmm(settings, images)
    named = _named(settings)
    models = (await store.stats()).models
    if not any(named_identity(model) == named for model in models):  # recorded with images sent in another way
        others = {named_identity(model) for model in models if sent_otherwise(model) == sent_otherwise(named)}
        named = others.pop() if len(others) == 1 else named
    known = [model for model in models if named_identity(model) == named != model]
    if len(known) > 1:
        raise ConfigError(
            f"the response cache has answers of {len(known)} servers for {settings.model} ({'; '.join(sorted(known))});"
            " replay a run of one of them with --replay RUN, or remove the others with `fieldscope cache prune --model`"
        )
    return RecordedLMM(known[0] if known else named, {}, {})


def _identifier(model: LMM, settings: Settings) -> Callable[[], Awaitable[None]] | None:
    """What asks a server for all that it tells of the model, and says once where that is nothing; None in a replay."""
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.core.server_facts import WEIGHTS

    if not isinstance(model, OpenAILMM):
        return None

    async def identify() -> None:
        facts = await model.identify()
        server = (model.url, model.model)
        if settings.revision is None and not facts.keys() & set(WEIGHTS) and server not in _warned:
            _warned.add(server)
            warn(
                f"{model.url} does not report which weights it serves as {model.model}; if they may change under that "
                "name, tell them apart with --revision, so that remembered answers stay with their own weights"
            )

    return identify


async def probe_server(settings: Settings) -> int | None:
    """How many tokens the model's context has, where the settings' server says so; None where no server is asked.
    Raises what `check_served` does."""
    if not settings.asks_server:
        return None
    from fieldscope.agent.lmm.openai import OpenAILMM
    from fieldscope.retrieval.collection import FilesCollection

    lmm = cast(OpenAILMM, _lmm(settings, FilesCollection({})))
    try:
        return (await check_served(lmm)).context
    finally:
        await lmm.aclose()


def _prepare_libraries(downloads: bool) -> None:
    """Settings that torch and transformers read when they are imported; the user's own stay.

    Threads that wait for work shall sleep: by default they spin, and beside any other load on the machine that makes
    small models several times slower. The libraries' own progress bars are shown for downloads in a terminal only.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not (downloads and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

"""Opening the engine: first the slow parts, which need no event loop, then the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fieldscope.agent.roles import ROLES
from fieldscope.core.paths import cache_folder
from fieldscope.core.private import close_to_others, private_folder
from fieldscope.retrieval.images import ImageLimits
from fieldscope.retrieval.manifest import writing
from fieldscope.service.server.api.agents import load_strategies
from fieldscope.service.server.api.collections import ServedCollection, flagged, open_collections, open_served
from fieldscope.service.server.api.deadline import PunctualLMM
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.models import BUNDLED, Models
from fieldscope.service.server.api.observer import ObservedLMM, Observer
from fieldscope.service.server.api.pictures import PictureStore
from fieldscope.service.server.api.traces import TraceStore
from fieldscope.service.server.api.vectors import ResidentImages
from fieldscope.service.server.settings import NO_ENCODER, ServerSettings
from fieldscope.service.workflows.promise import LabelledRun

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.retrieval.encoder import Encoder

_PRIVATE = (
    *("pictures", "traces", "searches", "indexes", "runs"),
    *("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "jobs.lock"),
)
"""The service's files in its data folder."""

_LAST_ANSWERS = 5.0
"""Seconds for which a shutdown waits for answers that were paid for, though their calls are over."""


@dataclass(frozen=True)
class Prepared:
    """The parts that are slow to open and need no event loop. `own` has the pixel hashes that the bundled models
    know."""

    strategies: Mapping[str, Strategy]
    encoder: Encoder | None
    collections: Mapping[str, ServedCollection]
    own: frozenset[str]

    def reopen(self, name: str, settings: ServerSettings) -> ServedCollection:
        """One of the collections as its folder is now. Raises `ConfigError`."""
        collection = open_served(name, settings, self.encoder)
        return flagged(collection) if self.own else collection


def prepare(settings: ServerSettings, encoder: Encoder | None = None) -> Prepared:
    """Load strategies and the CLIP (or take `encoder`), and open the collections, whose indexes are built on first use.

    Raises `ConfigError`.
    """
    from fieldscope.eval.prices import load_price
    from fieldscope.service.wiring.fieldnotes import pictures
    from fieldscope.service.wiring.models import load_encoder
    from fieldscope.service.wiring.own_pictures import known_hashes
    from fieldscope.service.wiring.prompts import check_wordings, prompts_for

    prompts = prompts_for(settings.models)
    strategies = load_strategies(settings.strategies, prompts)
    check_wordings(list(strategies.values()), prompts)
    if settings.prices is not None:
        for model in dict.fromkeys(settings.models.names(ROLES).values()):
            load_price(settings.prices, model)
    if not settings.collections:
        pictures("test")  # before models are loaded, because forked processes draw them
    if encoder is None and settings.encoder != NO_ENCODER:
        encoder = load_encoder(settings.models)
    if encoder is not None:
        _ = encoder.uses  # a server is asked now, and not by the first call
    collections = open_collections(settings, encoder)
    bundled = settings.models.bundled(ROLES) or settings.encoder is None
    if bundled and settings.collections:
        collections = {name: flagged(collection) for name, collection in collections.items()}
    return Prepared(strategies, encoder, collections, known_hashes() if bundled else frozenset())


def close_private_files(settings: ServerSettings) -> None:
    """Make the service's files unreadable for others; older versions left them open. Raises `ConfigError`."""
    folder = settings.data_folder
    with writing(folder):
        if settings.data is None:
            private_folder(cache_folder())
        private_folder(folder)
    for name in _PRIVATE:
        close_to_others(folder / name)
    close_to_others(cache_folder() / "viewer")


@asynccontextmanager
async def open_engine(
    settings: ServerSettings,
    lmm: LMM | None = None,
    encoder: Encoder | None = None,
    prepared: Prepared | None = None,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Engine]:
    """The engine, until the service ends. `lmm` and `encoder` replace those that the settings name; `prepared` was
    opened before. Raises `ConfigError`."""
    from fieldscope.retrieval.looked_at import with_looks
    from fieldscope.service.wiring.prompt_pictures import with_examples
    from fieldscope.service.wiring.regions import tile_regions
    from fieldscope.service.wiring.roles import drain, open_lmms
    from fieldscope.service.wiring.scorers import open_scorer

    close_private_files(settings)
    clip_bundled = encoder is None and settings.encoder is None
    prepared = prepared or prepare(settings, encoder)
    folder, limits = settings.data_folder, settings.limits
    pictures = PictureStore(folder / "pictures", ImageLimits(limits.max_image_bytes, limits.max_pixels))
    images = ResidentImages(pictures, prepared.collections)
    looked_at = with_looks(images)
    shown = with_examples(looked_at, [prompt for each in prepared.strategies.values() for prompt in each.prompts])
    doors = [partial(ObservedLMM, observer=observer) for observer in observers]
    async with AsyncExitStack() as stack:
        cached = await stack.enter_async_context(open_lmms(settings.models, shown, ROLES, lmm, doors, may_be_away=True))
        scorer = None
        if settings.scorer is not None:
            scorer = await stack.enter_async_context(open_scorer(settings.models, images, may_be_away=True))
        models = Models(
            settings=settings.models,
            lmms=cached.wrapped(PunctualLMM),
            encoder=prepared.encoder,
            lmm_named=lmm is None,
            clip_name=None if prepared.encoder is None else settings.encoder or BUNDLED,
            clip_bundled=clip_bundled,
            scorer=scorer,
            own=prepared.own,
        )
        traces = TraceStore(folder / "traces", images.locator())
        labelled = LabelledRun(settings.precision_from) if settings.precision_from is not None else None
        known = prepared.encoder
        regions = None
        if known is not None:
            regions = tile_regions(images, settings.models, folder / "tiles", lambda: known, given=lmm is not None)
        engine = Engine(
            settings,
            prepared.strategies,
            prepared.collections,
            models,
            images,
            pictures,
            traces,
            observers,
            labelled,
            looked_at,
            regions,
            partial(prepared.reopen, settings=settings),
        )
        try:
            yield engine
        finally:
            engine.stop(0.0)
            await engine.refreshing.close()
            await drain(cached, min(settings.grace, _LAST_ANSWERS))
            await asyncio.to_thread(traces.close)

"""The engine: models, collections and strategies, opened once and shared by all calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fieldscope.agent.graph import Agent, Derived, Watch
from fieldscope.core.validation import unknown_name
from fieldscope.service.server.api.admission import Admission
from fieldscope.service.server.api.agents import Agents
from fieldscope.service.server.api.calls import Options, RerankCall, Reranked, SearchCall
from fieldscope.service.server.api.collections import ServedCollection, find_image
from fieldscope.service.server.api.deadline import PunctualLMM
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.models import Models
from fieldscope.service.server.api.observer import Observer
from fieldscope.service.server.api.pictures import PictureStore
from fieldscope.service.server.api.promises import promised
from fieldscope.service.server.api.questions import require_asked
from fieldscope.service.server.api.ranker import Ranker
from fieldscope.service.server.api.refreshing import Refreshing
from fieldscope.service.server.api.textjudge import TextJudge
from fieldscope.service.server.api.traces import TraceStore
from fieldscope.service.server.api.turns import Turns
from fieldscope.service.server.api.vectors import ResidentImages, Vectoriser
from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.wiring.prompts import prompts_for

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Vectors
    from fieldscope.retrieval.regions import RegionProposer
    from fieldscope.service.workflows.promise import LabelledRun

__all__ = ["Engine", "Watch"]

_SHOWN = 100  # characters of a client's text in an error


class Engine:
    """Models, collections, strategies and stores that calls share. Serves one event loop.

    `admission` limits the calls at work; `traces` and `pictures` are kept on disk; `observers` see what happens.
    `reopen` opens a collection again by its name, for a refresh. `stopping` is set once the service shuts down, and
    `on_stop` are called then. Promised precisions come from the `labelled` run.
    """

    def __init__(
        self,
        settings: ServerSettings,
        strategies: Mapping[str, Strategy],
        collections: Mapping[str, ServedCollection],
        models: Models,
        images: ResidentImages,
        pictures: PictureStore,
        traces: TraceStore,
        observers: Sequence[Observer] = (),
        labelled: LabelledRun | None = None,
        looked_at: ImageSource | None = None,
        regions: RegionProposer | None = None,
        reopen: Callable[[str], ServedCollection] | None = None,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.collections = dict(collections)
        self.refreshing = Refreshing(reopen or self.collections.__getitem__, self.replace, settings.collections.get)
        self.refreshing.remember_indexes(list(self.collections))
        self.models = models
        self.images = images
        self.pictures = pictures
        self.traces = traces
        self.admission = Admission(self.limits.at_work, self.limits.waiting)
        self.on_stop: list[Callable[[], None]] = []
        self.stopping = False
        self._labelled = labelled
        prompts = prompts_for(settings.models)
        explain = prompts.load("explain")
        shown = looked_at or images
        self._agents = Agents(strategies, settings.strategy, models.lmms, shown, settings.concurrency, explain, regions)
        encoder = models.encoder
        self._vectors = Vectoriser(encoder, images, self.collections) if encoder is not None else None
        self._turns = Turns(self.admission, self.limits.max_seconds, observers)
        texts = TextJudge(models, images, prompts, settings.concurrency)
        self._ranker = Ranker(models, images, self._agents, texts, self._vectors, traces, observers)

    def strategy(self, name: str | None) -> Strategy:
        """By its name; None is the service's default. Raises `ApiError` (400)."""
        return self._agents.strategy(name)

    def chosen(self, options: Options) -> Strategy:
        """The strategy of a call, with its instruction. Raises `ApiError` where it can't do what the options say."""
        strategy = self.strategy(options.strategy).instructed(options.instruction)
        require_asked(options.predicates, strategy, options.wanted.precision is not None)
        return strategy

    def strategies(self) -> Sequence[Strategy]:
        """All strategies, the default first."""
        return self._agents.strategies()

    def agent(self, strategy: str | None = None) -> Agent:
        """The agent that ranks given images under a strategy, without reasons, admission and traces."""
        encoder = self.models.encoder
        return self._agents.agent(self.strategy(strategy), 0, encoder.fingerprint if encoder is not None else None)

    def collection(self, name: str) -> ServedCollection:
        """By its name. Raises `ApiError` (404)."""
        if name not in self.collections:
            raise ApiError(404, "unknown_collection", unknown_name("collection", name[:_SHOWN], self.collections))
        return self.collections[name]

    def replace(self, collection: ServedCollection) -> None:
        """Put a collection that was opened again in the place of the old one; calls at work end with the old one."""
        self.collections[collection.name] = collection
        self.images.replace(collection.reference(""), collection.images)
        self._agents.forget()
        if self._vectors is not None:
            self._vectors.forget()

    def searchable(self, name: str | None) -> ServedCollection:
        """A collection with an index, by its name; None is the only one. Raises `ApiError`."""
        if name is None and len(self.collections) != 1:
            names = ", ".join(sorted(self.collections)) or "none"
            raise ApiError(422, "no_collection", f"the request names no collection; known: {names}")
        collection = self.collection(name if name is not None else next(iter(self.collections)))
        if collection.library is None:
            sentence = f"collection {collection.name!r} has no index. Start the service with --encoder"
            raise ApiError(409, "not_searchable", sentence)
        return collection

    def image(self, reference: str) -> str:
        """The id, in a call's images, of `fieldscope://COLLECTION/ID`. Raises `ApiError` (404)."""
        place = find_image(self.collections, reference)
        if place is None:
            raise ApiError(
                404,
                "unknown_image",
                f"{reference[:_SHOWN]!r} is not an image of a registered collection; /v1/collections lists them",
            )
        return place[0].reference(place[1])

    def known_vectors(self, image_ids: Sequence[str]) -> Vectors | None:
        """The vectors of images in the order of their ids, shape (n, dim); None where one is in no index."""
        return self._vectors.known(image_ids) if self._vectors is not None else None

    async def rerank(self, call: RerankCall, watch: Watch | None = None) -> Reranked:
        """Rank a call's documents, in its turn. Raises `ApiError`, `ImageError` for an image that can't be read and
        `VocabularyError` for words that the bundled models do not know."""
        strategy = self.chosen(call.options)
        promise = promised(self._labelled, call.options.wanted, strategy)
        return await self._turns.take(
            strategy.name, lambda ends: self._ranker.rerank(call, strategy, promise, watch, ends)
        )

    async def search(self, call: SearchCall, watch: Watch | None = None) -> Reranked:
        """Retrieve from a collection and rank, in turn. Raises as `rerank` does."""
        strategy = self.chosen(call.options)
        promise = promised(self._labelled, call.options.wanted, strategy)
        return await self._turns.take(
            strategy.name,
            lambda ends: self._ranker.search(call, self.searchable(call.collection), strategy, promise, watch, ends),
        )

    async def derive(self, call: SearchCall) -> Derived:
        """The predicates that the model derives from a search's query, before any image is asked about. Raises as
        `search` does, and `ApiError` where the strategy asks none."""
        strategy = self.chosen(call.options)
        if strategy.decompose is None:
            raise ApiError(
                422,
                "no_predicates",
                f"strategy {strategy.name!r} asks no predicates; choose one with stage `decompose`, such as 'agent'",
            )
        return await self._turns.take(strategy.name, lambda ends: self._ranker.derive(call, strategy, ends))

    async def ready(self) -> dict[str, str]:
        """Each part of the service with "ok", or with a sentence that says what is missing."""
        parts = {"service": "the service is shutting down" if self.stopping else "ok", "lmm": await self.models.ready()}
        if self.models.encoder is not None:
            parts["clip"] = "ok"
        for name, collection in self.collections.items():
            searchable = collection.library is not None or self.models.encoder is None
            parts[f"collection {name}"] = "ok" if searchable else "its index is not loaded"
        return parts

    def stop(self, grace: float) -> None:
        """Begin to shut down: refuse new and waiting calls, and give calls at work half of `grace` seconds for further
        questions, after which they rank by the answers so far."""
        if self.stopping:
            return
        self.stopping = True
        self.admission.close()
        for lmm in self.models.lmms.distinct():
            if isinstance(lmm, PunctualLMM):
                lmm.close_at(time.monotonic() + grace / 2)
        for stop in self.on_stop:
            stop()

"""The engine: models, collections and strategies, opened once and shared by all calls."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.call import image_parts
from fieldscope.agent.graph import Agent, Watch
from fieldscope.agent.image_scorer import ImageScorer, image_score
from fieldscope.agent.nodes.synthesize import caption_image
from fieldscope.agent.strategies.query_stages import Synthesize
from fieldscope.agent.types import Call, Predicate, RerankResult
from fieldscope.core.types import Candidate, Query
from fieldscope.core.validation import unknown_name
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.server.api.admission import Admission
from fieldscope.service.server.api.agents import Agents
from fieldscope.service.server.api.calls import (
    ImageDocument,
    Options,
    RerankCall,
    Reranked,
    Scored,
    SearchCall,
    TextDocument,
)
from fieldscope.service.server.api.collections import ServedCollection, find_image
from fieldscope.service.server.api.deadline import PunctualLMM, until
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.filters import filtered
from fieldscope.service.server.api.models import Models
from fieldscope.service.server.api.observer import Observer
from fieldscope.service.server.api.outcome import (
    completed,
    document_id,
    ordered,
    require_knowledge,
    unjudged_flags,
)
from fieldscope.service.server.api.pictures import PictureStore
from fieldscope.service.server.api.promises import promised, require_setting
from fieldscope.service.server.api.questions import require_asked
from fieldscope.service.server.api.refreshing import Refreshing
from fieldscope.service.server.api.servedrun import Setting
from fieldscope.service.server.api.texts import Judged, judge_texts
from fieldscope.service.server.api.traces import TraceStore
from fieldscope.service.server.api.vectors import ResidentImages, ServedRetriever, Vectoriser
from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.wiring.predicates import given_flags
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY

if TYPE_CHECKING:
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.retrieval.encoder import Vectors
    from fieldscope.retrieval.regions import RegionProposer
    from fieldscope.service.workflows.promise import KeptImages, LabelledRun, Promise

__all__ = ["Engine", "Watch"]

T = TypeVar("T")

_OVERTIME = 15.0
"""Seconds after its deadline at which a call is given up, in case something other than the model delays it."""

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
        self._observers = observers
        self._labelled = labelled
        self._prompts = prompts_for(settings.models)
        explain = self._prompts.load("explain")
        shown = looked_at or images
        self._agents = Agents(strategies, settings.strategy, models.lmms, shown, settings.concurrency, explain, regions)
        encoder = models.encoder
        self._vectors = Vectoriser(encoder, images, self.collections) if encoder is not None else None

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
        with self._observed(strategy):
            return await self._admitted(lambda ends: self._rerank(call, strategy, promise, watch, ends))

    async def search(self, call: SearchCall, watch: Watch | None = None) -> Reranked:
        """Retrieve from a collection and rank, in turn. Raises as `rerank` does."""
        strategy = self.chosen(call.options)
        promise = promised(self._labelled, call.options.wanted, strategy)
        with self._observed(strategy):
            return await self._admitted(lambda ends: self._search(call, strategy, promise, watch, ends))

    async def derive(self, call: SearchCall) -> tuple[Predicate, ...]:
        """The predicates that the model derives from a search's query, before any image is asked about. Raises as
        `search` does, and `ApiError` where the strategy asks none."""
        strategy = self.chosen(call.options)
        if strategy.decompose is None:
            raise ApiError(
                422,
                "no_predicates",
                f"strategy {strategy.name!r} asks no predicates; choose one with stage `decompose`, such as 'agent'",
            )
        with self._observed(strategy):
            return await self._admitted(lambda ends: self._derive(call, strategy, ends))

    async def _derive(self, call: SearchCall, strategy: Strategy, ends: float) -> tuple[Predicate, ...]:
        text = _one_line(call.query)
        query = Query(id=uuid4().hex, text=text, reference_image=call.query_image, dialogue=call.dialogue)
        self.models.require_search_words(query, strategy)
        await self.images.learn([call.query_image] if call.query_image else [])
        encoder, scorer = self.models.encoder, await self.models.scorer_of(strategy)
        scoring = ImageScorer(scorer, self.images) if scorer is not None else None
        agent = self._agents.agent(strategy, 0, encoder.fingerprint if encoder is not None else None, scorer=scoring)
        account = Account(_within(call.options.budget, ends))
        predicates, calls = await _on_account(agent, account).derive(query)
        if calls and all(each.state == "unknown" for each in calls):
            raise ApiError(503, "lmm_failed", f"the LMM derived no predicates: {calls[-1].error}. Try again", 1)
        return predicates

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

    async def _admitted(self, work: Callable[[float], Awaitable[T]]) -> T:
        """Work in turn, and within the time limit of a call, which begins with its arrival."""
        arrived = time.monotonic()
        ends = arrived + self.limits.max_seconds
        async with self.admission.place(self.limits.max_seconds):
            for observer in self._observers:
                observer.waited(time.monotonic() - arrived)
            with until(ends):
                try:
                    async with asyncio.timeout(ends - time.monotonic() + _OVERTIME):
                        return await work(ends)
                except TimeoutError as error:
                    raise ApiError(
                        504,
                        "deadline",
                        "time ran out before there was a ranking; try again, or ask fewer questions with a budget",
                    ) from error

    async def _rerank(
        self, call: RerankCall, strategy: Strategy, promise: Promise | None, watch: Watch | None, ends: float
    ) -> Reranked:
        trace_id, account = uuid4().hex, Account(_within(call.options.budget, ends))
        query = Query(id=trace_id, text=_one_line(call.query), reference_image=call.query_image)
        documents = call.documents
        pictures = list(dict.fromkeys(image.image_id for image in documents if isinstance(image, ImageDocument)))
        texts = {document_id(n): text.text for n, text in enumerate(documents) if isinstance(text, TextDocument)}
        shown = [*pictures, *([call.query_image] if call.query_image else [])]
        await self.images.learn(shown)
        foreign = self.models.foreign(self.images, shown)
        self.models.require_question_words(call.options.predicates, strategy)
        scorer = await self.models.scorer_of(strategy)
        encoder = self.models.prior_encoder(query, strategy, foreign)
        if encoder is None and scorer is None and not strategy.prompts:
            raise ApiError(
                422,
                "no_first_stage",
                f"strategy {strategy.name!r} needs a CLIP that knows these images; choose another strategy",
            )
        described, captioned = query, tuple[Call, ...]()
        if not query.text and pictures and strategy.prompts:
            described, captioned = await self._described(query, strategy, account)
        origin = encoder.fingerprint if encoder is not None else None
        scoring = ImageScorer(scorer, self.images) if scorer is not None else None
        agent = _on_account(self._agents.agent(strategy, call.options.explain, origin, scorer=scoring), account)
        require_setting(promise, self._setting(agent, origin), scoring.fingerprint if scoring else None)
        vectors = self._vectors if encoder is not None else None
        ranked = await self._rank(query, described, pictures, agent, vectors, watch, call.options.predicates)
        if texts and scorer is not None and not strategy.prompts:
            judged = await self._scored(query, texts, scorer, strategy)
        else:
            judged = await self._judged(query, texts, agent, vectors, account)
        flags = (
            *unjudged_flags(call.documents),
            *self.models.flags(strategy, encoder, foreign),
            *given_flags(ranked, agent.resources.calibration is not None),
        )
        result = completed(ranked, flags, captioned, judged)
        self._notify(result)
        if judged.nothing and not pictures:
            self.models.require_readable(texts.values())
        require_knowledge(ranked, judged, prior=encoder is not None, late=time.monotonic() >= ends)
        order = ordered(result, call.documents, judged)[: call.top_n]
        kept = promise.keep(result) if promise else None
        return self._kept(result, self._setting(agent, origin), self.models.name(strategy), order, kept)

    async def _rank(
        self,
        query: Query,
        described: Query,
        pictures: Sequence[str],
        agent: Agent,
        vectors: Vectoriser | None,
        watch: Watch | None,
        predicates: Sequence[Predicate],
    ) -> RerankResult:
        """The images ranked for `described`, with their similarity to `query` as the prior if `vectors` are given."""
        if not pictures:
            return RerankResult(
                query_id=query.id,
                query_text=query.text,
                reference_image=query.reference_image,
                strategy=agent.strategy.name,
                ranking=(),
            )
        priors, usual, instruction = [0.0] * len(pictures), None, agent.strategy.retrieve.instruction
        if vectors is not None:
            priors = await vectors.priors(query, pictures, instruction)
            usual = await vectors.background(query, pictures, instruction)
        candidates = [
            Candidate(picture, prior, usual.standing(prior) if usual else None)
            for picture, prior in zip(pictures, priors, strict=True)
        ]
        return await agent.rerank(described, candidates, watch=watch, predicates=predicates)

    async def _search(
        self, call: SearchCall, strategy: Strategy, promise: Promise | None, watch: Watch | None, ends: float
    ) -> Reranked:
        wanted = call.options.filter
        collection = await asyncio.to_thread(filtered, self.searchable(call.collection), wanted)
        assert self._vectors is not None
        query = Query(
            id=uuid4().hex, text=_one_line(call.query), reference_image=call.query_image, dialogue=call.dialogue
        )
        self.models.require_search_words(query, strategy)
        self.models.require_question_words(call.options.predicates, strategy)
        await self.images.learn([call.query_image] if call.query_image else [])
        origin = self._vectors.encoder.fingerprint
        retriever = ServedRetriever(collection, self._vectors)
        scorer = await self.models.scorer_of(strategy)
        scoring = ImageScorer(scorer, self.images) if scorer is not None else None
        place = (collection.name, retriever)
        # The index of a filtered collection goes with its call.
        agent = self._agents.agent(strategy, call.options.explain, origin, place, scoring, keep=wanted is None)
        require_setting(promise, self._setting(agent, origin), scoring.fingerprint if scoring else None)
        account = Account(_within(call.options.budget, ends))
        predicates = call.options.predicates
        result = await _on_account(agent, account).rerank(query, None, call.top_k, watch=watch, predicates=predicates)
        self._notify(result)
        require_knowledge(result, Judged(), prior=True, late=time.monotonic() >= ends)
        ids = [ranked.image_id for ranked in result.ranking]
        foreign = await asyncio.to_thread(self.models.foreign, self.images, ids)
        calibrated = agent.resources.calibration is not None
        flags = (*self.models.flags(strategy, self.models.encoder, foreign), *given_flags(result, calibrated))
        result = completed(result, flags, (), Judged())
        kept = promise.keep(result) if promise else None
        return self._kept(result, self._setting(agent, origin), self.models.name(strategy), kept=kept)

    async def _described(self, query: Query, strategy: Strategy, account: Account) -> tuple[Query, tuple[Call, ...]]:
        """A query that is only an image, described in words by the LMM, whose questions are about words."""
        settings = strategy.synthesize or self.strategy(DEFAULT_STRATEGY).synthesize
        assert isinstance(settings, Synthesize) and query.reference_image is not None
        lmm = BudgetedLMM(self.models.lmm("captioner"), account)
        call = await caption_image(lmm, query.reference_image, settings, self.images)
        if call.state == "unknown":
            raise ApiError(
                503,
                "lmm_failed",
                f"the LMM did not describe the query's image: {call.error}. Try again, or add words to the query",
            )
        return query.model_copy(update={"text": call.text, "reference_image": None}), (call,)

    async def _judged(
        self, query: Query, texts: Mapping[str, str], agent: Agent, vectors: Vectoriser | None, account: Account
    ) -> Judged:
        """The texts' priors, if `vectors` are given, and the LMM's verdicts, if the strategy asks."""
        if not texts:
            return Judged()
        instruction = agent.strategy.retrieve.instruction
        readable = self.models.readable(texts)
        priors = await vectors.text_priors(query, readable, instruction) if vectors is not None else {}
        if not agent.strategy.prompts:
            return Judged(tuple(texts), (), priors)
        shown = query.reference_image
        image = (await image_parts(self.images, [shown]))[0] if shown is not None else None
        lmm = BudgetedLMM(self.models.lmm("verifier"), account)
        at_once = self.settings.concurrency
        verdicts = await judge_texts(lmm, query.text, texts, self._prompts, image=image, at_once=at_once)
        return Judged(tuple(texts), verdicts, priors)

    async def _scored(self, query: Query, texts: Mapping[str, str], scorer: CachedScorer, strategy: Strategy) -> Judged:
        """The scoring model's scores of the texts."""
        assert strategy.score is not None
        shown = query.reference_image
        picture = await asyncio.to_thread(self.images.load, shown) if shown is not None else None
        pairs = await scorer.judge_texts(QueryInputs(query.text, picture, strategy.score.instruction), texts)
        return Judged(tuple(texts), scored=tuple(image_score(document, pair) for document, pair in pairs.items()))

    @contextmanager
    def _observed(self, strategy: Strategy) -> Iterator[None]:
        with ExitStack() as around:
            for observer in self._observers:
                around.enter_context(observer.reranking(strategy.name))
            yield

    def _notify(self, result: RerankResult) -> None:
        for observer in self._observers:
            observer.ranked(result)

    def _setting(self, agent: Agent, encoder: str | None) -> Setting:
        lmm = self.models.lmms.identity(agent.strategy.roles())
        return Setting(agent.strategy, lmm, encoder, agent.resources.calibration)

    def _kept(
        self,
        result: RerankResult,
        setting: Setting,
        model: str,
        order: Sequence[Scored] = (),
        kept: KeptImages | None = None,
    ) -> Reranked:
        """The reply to a call, whose trace will be written to the disk."""
        self.traces.keep(result, setting)
        return Reranked(result, model, tuple(order), kept, setting)


def _on_account(agent: Agent, account: Account) -> Agent:
    """A copy of the agent that spends from one call's account; the graph, which is slow to build, is shared."""
    own = copy.copy(agent)
    own.account = account
    return own


def _within(budget: Budget | None, ends: float) -> Budget:
    """A call's budget, with a deadline no later than the call's end."""
    budget, left = budget or Budget(), max(ends - time.monotonic(), 0.0)
    return Budget(budget.max_calls, budget.max_tokens, left if budget.deadline is None else min(budget.deadline, left))


def _one_line(text: str) -> str:
    return " ".join(text.split())

"""The work of an admitted call: its query and pictures made ready, the agent that ranks, and the reply."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from fieldscope.agent.budget import Account, Budget
from fieldscope.agent.graph import Agent, Derived, Watch
from fieldscope.agent.image_scorer import ImageScorer
from fieldscope.agent.strategies.query_stages import Synthesize
from fieldscope.agent.types import Call, Predicate, RerankResult
from fieldscope.core.types import Candidate, Query
from fieldscope.eval.model_watch import unparsed
from fieldscope.service.server.api.agents import Agents
from fieldscope.service.server.api.calls import ImageDocument, RerankCall, Reranked, Scored, SearchCall, TextDocument
from fieldscope.service.server.api.collections import ServedCollection
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.filters import filtered
from fieldscope.service.server.api.models import Models
from fieldscope.service.server.api.observer import Observer
from fieldscope.service.server.api.outcome import completed, document_id, ordered, require_knowledge, unjudged_flags
from fieldscope.service.server.api.promises import require_setting
from fieldscope.service.server.api.servedrun import Setting
from fieldscope.service.server.api.textjudge import TextJudge
from fieldscope.service.server.api.texts import Judged
from fieldscope.service.server.api.traces import TraceStore
from fieldscope.service.server.api.vectors import ResidentImages, ServedRetriever, Vectoriser
from fieldscope.service.wiring.predicates import given_flags
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY

if TYPE_CHECKING:
    from fieldscope.agent.scored import CachedScorer
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.service.workflows.promise import KeptImages, Promise


class Ranker:
    """Ranks for the engine, which has checked and admitted a call. Every call ends at `ends`, a reading of the
    monotonic clock; what it needs longer for is unknown then. `observers` hear of rankings, and `traces` keep them."""

    def __init__(
        self,
        models: Models,
        images: ResidentImages,
        agents: Agents,
        texts: TextJudge,
        vectors: Vectoriser | None,
        traces: TraceStore,
        observers: Sequence[Observer],
    ) -> None:
        self._models = models
        self._images = images
        self._agents = agents
        self._texts = texts
        self._vectors = vectors
        self._traces = traces
        self._observers = observers

    async def derive(self, call: SearchCall, strategy: Strategy, ends: float) -> Derived:
        """The predicates of a search's query; of an LMM whose words can't be read what stands in for them. Raises
        `ApiError` (503) where it says nothing."""
        text = _one_line(call.query)
        query = Query(id=uuid4().hex, text=text, reference_image=call.query_image, dialogue=call.dialogue)
        self._models.require_search_words(query, strategy)
        await self._images.learn([call.query_image] if call.query_image else [])
        account, scorer = Account(_within(call.options.budget, ends)), await self._models.scorer_of(strategy)
        derived = await self._agent(strategy, account, self._models.encoder, scorer).derive(query)
        calls = derived.calls
        if calls and all(each.state == "unknown" and not unparsed(each) for each in calls):
            raise ApiError(503, "lmm_failed", f"the LMM derived no predicates: {calls[-1].error}. Try again", 1)
        return derived

    async def rerank(
        self, call: RerankCall, strategy: Strategy, promise: Promise | None, watch: Watch | None, ends: float
    ) -> Reranked:
        """Rank the call's documents."""
        trace_id, account = uuid4().hex, Account(_within(call.options.budget, ends))
        query = Query(id=trace_id, text=_one_line(call.query), reference_image=call.query_image)
        documents = call.documents
        pictures = list(dict.fromkeys(image.image_id for image in documents if isinstance(image, ImageDocument)))
        texts = {document_id(n): text.text for n, text in enumerate(documents) if isinstance(text, TextDocument)}
        shown = [*pictures, *([call.query_image] if call.query_image else [])]
        await self._images.learn(shown)
        foreign = self._models.foreign(self._images, shown)
        self._models.require_question_words(call.options.predicates, strategy)
        scorer = await self._models.scorer_of(strategy)
        encoder = self._models.prior_encoder(query, strategy, foreign)
        if encoder is None and scorer is None and not strategy.prompts:
            raise ApiError(
                422,
                "no_first_stage",
                f"strategy {strategy.name!r} needs a CLIP that knows these images; choose another strategy",
            )
        described, captioned = query, tuple[Call, ...]()
        if not query.text and pictures and strategy.prompts:
            settings = strategy.synthesize or self._agents.strategy(DEFAULT_STRATEGY).synthesize
            assert isinstance(settings, Synthesize)
            described, captioned = await self._texts.described(query, settings, account)
        agent = self._agent(strategy, account, encoder, scorer, call.options.explain)
        setting = self._setting(agent, encoder)
        require_setting(promise, setting, scorer.fingerprint if scorer is not None else None)
        vectors = self._vectors if encoder is not None else None
        ranked = await self._rank(query, described, pictures, agent, vectors, watch, call.options.predicates)
        if texts and scorer is not None and not strategy.prompts:
            judged = await self._texts.scored(query, texts, scorer, strategy)
        else:
            judged = await self._texts.judged(query, texts, agent.strategy, vectors, account)
        flags = (
            *unjudged_flags(call.documents),
            *self._models.flags(strategy, encoder, foreign),
            *given_flags(ranked, agent.resources.calibration is not None),
        )
        result = completed(ranked, flags, captioned, judged)
        self._notify(result)
        if judged.nothing and not pictures:
            self._models.require_readable(texts.values())
        require_knowledge(ranked, judged, prior=encoder is not None, late=time.monotonic() >= ends)
        order = ordered(result, call.documents, judged)[: call.top_n]
        kept = promise.keep(result) if promise else None
        return self._kept(result, setting, self._models.name(strategy), order, kept)

    async def search(
        self,
        call: SearchCall,
        collection: ServedCollection,
        strategy: Strategy,
        promise: Promise | None,
        watch: Watch | None,
        ends: float,
    ) -> Reranked:
        """Retrieve from the collection and rank."""
        wanted = call.options.filter
        collection = await asyncio.to_thread(filtered, collection, wanted)
        assert self._vectors is not None
        query = Query(
            id=uuid4().hex, text=_one_line(call.query), reference_image=call.query_image, dialogue=call.dialogue
        )
        self._models.require_search_words(query, strategy)
        self._models.require_question_words(call.options.predicates, strategy)
        await self._images.learn([call.query_image] if call.query_image else [])
        encoder, place = self._vectors.encoder, (collection.name, ServedRetriever(collection, self._vectors))
        account, scorer = Account(_within(call.options.budget, ends)), await self._models.scorer_of(strategy)
        # The index of a filtered collection goes with its call.
        agent = self._agent(strategy, account, encoder, scorer, call.options.explain, place, keep=wanted is None)
        setting = self._setting(agent, encoder)
        require_setting(promise, setting, scorer.fingerprint if scorer is not None else None)
        predicates = call.options.predicates
        result = await agent.rerank(query, None, call.top_k, watch=watch, predicates=predicates)
        self._notify(result)
        require_knowledge(result, Judged(), prior=True, late=time.monotonic() >= ends)
        ids = [ranked.image_id for ranked in result.ranking]
        foreign = await asyncio.to_thread(self._models.foreign, self._images, ids)
        calibrated = agent.resources.calibration is not None
        flags = (*self._models.flags(strategy, self._models.encoder, foreign), *given_flags(result, calibrated))
        result = completed(result, flags, (), Judged())
        kept = promise.keep(result) if promise else None
        return self._kept(result, setting, self._models.name(strategy), kept=kept)

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
        candidates = [Candidate(picture, 0.0) for picture in pictures]
        if vectors is not None:
            candidates = await vectors.candidates(query, pictures, agent.strategy.retrieve.instruction)
        return await agent.rerank(described, candidates, watch=watch, predicates=predicates)

    def _notify(self, result: RerankResult) -> None:
        for observer in self._observers:
            observer.ranked(result)

    def _agent(
        self,
        strategy: Strategy,
        account: Account,
        encoder: Encoder | None,
        scorer: CachedScorer | None,
        explain: int = 0,
        place: tuple[str, ServedRetriever] | None = None,
        *,
        keep: bool = True,
    ) -> Agent:
        """An agent that spends from one call's account; the graph, which is slow to build, is shared."""
        scoring = ImageScorer(scorer, self._images) if scorer is not None else None
        origin = encoder.fingerprint if encoder is not None else None
        shared = self._agents.agent(strategy, explain, origin, place, scoring, keep=keep)
        own = copy.copy(shared)
        own.account = account
        return own

    def _setting(self, agent: Agent, encoder: Encoder | None) -> Setting:
        lmm = self._models.lmms.identity(agent.strategy.roles())
        origin = encoder.fingerprint if encoder is not None else None
        return Setting(agent.strategy, lmm, origin, agent.resources.calibration)

    def _kept(
        self,
        result: RerankResult,
        setting: Setting,
        model: str,
        order: Sequence[Scored] = (),
        kept: KeptImages | None = None,
    ) -> Reranked:
        """The reply to a call, whose trace will be written to the disk."""
        self._traces.keep(result, setting)
        return Reranked(result, model, tuple(order), kept, setting)


def _within(budget: Budget | None, ends: float) -> Budget:
    """A call's budget, with a deadline no later than the call's end."""
    budget, left = budget or Budget(), max(ends - time.monotonic(), 0.0)
    return Budget(budget.max_calls, budget.max_tokens, left if budget.deadline is None else min(budget.deadline, left))


def _one_line(text: str) -> str:
    return " ".join(text.split())

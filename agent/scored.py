"""Scores of a scoring model over a `CacheStore`: a pair that has a score is never sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from fieldscope.agent.lmm.base import ImagePart
from fieldscope.agent.lmm.cached import CacheMode
from fieldscope.agent.lmm.pixels import load_pixels
from fieldscope.agent.score_entries import (
    Part,
    form_entry,
    form_key,
    is_finite,
    missing_pair,
    pair_key,
    query_part,
    read_form,
    read_score,
    score_entry,
    shown_name,
)
from fieldscope.cache.store import AnyStore
from fieldscope.cache.writer import GroupWriter, as_async
from fieldscope.core.documents import has_image, text_of
from fieldscope.core.errors import CacheError, CacheMissError, ImageError, LMMError, LMMResponseError, one_line
from fieldscope.core.types import ImageSource, RemembersHashes
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs
from fieldscope.retrieval.scorer import Document, ExplainingScorer, NegotiatingScorer, PairScore, Scorer

_AT_ONCE = 32  # documents in memory, and at most as many scores that an interrupted run loses


class CachedScorer:
    """A scorer that remembers.

    A score is committed to the store before it is returned. A document without one is not remembered: it is asked about
    again the next time. Pairs with equal keys that are in flight at once are asked once, and a caller that is cancelled
    does not take the others' scores along. Serves one event loop; several processes may share a store.

    `mode` is that of the response cache: a `replay` asks nothing, `refresh` asks and overwrites, `off` asks and
    remembers nothing. `requests`, `pairs` and `tokens` count what the scorer was asked, `hits` the scores that cost
    nothing.
    """

    def __init__(self, scorer: Scorer, store: AnyStore, images: ImageSource, mode: CacheMode = "on") -> None:
        self._scorer = scorer
        self._store = as_async(store)
        self._images = images
        self._mode = mode
        self._identifying: asyncio.Task[None] | None = None
        self._in_flight: dict[str, asyncio.Future[PairScore]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._called = 0
        self._closing = asyncio.Event()
        self.pairs = self.tokens = self.hits = 0

    @property
    def fingerprint(self) -> str:
        """The scorer's. Of one behind a server it is known once `identify` has been awaited."""
        return self._scorer.fingerprint

    @property
    def requests(self) -> int:
        """Requests that the scorer sent to a server; for one in this process, the times that it was called."""
        return self._scorer.requests if isinstance(self._scorer, ExplainingScorer) else self._called

    def over(self, images: ImageSource) -> CachedScorer:
        """The same scorer and memory over other images."""
        other = copy(self)
        other._images = images
        return other

    @property
    def in_flight(self) -> int:
        """Pairs that the scorer is asked about at the moment."""
        return len(self._in_flight)

    async def identify(self) -> None:
        """Find out, once, what belongs to the fingerprint of a scorer behind a server: what it tells of its model, and
        the form of a request, which is remembered like a score. Raises an `LMMError` where the server is not there."""
        if self._identifying is None or (self._identifying.done() and self._identifying.exception()):
            self._identifying = asyncio.create_task(self._identify())
        await asyncio.shield(self._identifying)

    async def scores(self, inputs: QueryInputs, ids: Sequence[str]) -> dict[str, float | None]:
        """The score of each image, by its id, in the order given; None where it could not be judged."""
        return {image_id: pair.value for image_id, pair in (await self.judge(inputs, ids)).items()}

    async def judge(self, inputs: QueryInputs, ids: Sequence[str]) -> dict[str, PairScore]:
        """What the scorer says of each document, which is an image in most collections, by its id, in the order given.

        An image that can't be read, and all that were not asked about when the server failed, have no score and the
        error. Raises `CacheMissError` in a replay for a pair that was never scored, `CacheError` for a store that
        fails, and `ConfigError` for a kind of query that the scorer does not take.
        """
        parts = await asyncio.to_thread(self._parts, list(dict.fromkeys(ids)))
        readable = {name: part for name, part in parts.items() if not isinstance(part, ImageError)}

        def load(name: str) -> Document:
            part = readable[name]
            if "image" not in part:
                return part["text"]
            image = load_pixels(self._images, ImagePart(image_id=name, sha256=part["image"]))
            return DocumentInputs(part["text"], image) if "text" in part else image

        pairs = await self._judge(inputs, readable, load)
        return {
            name: PairScore(None, one_line(part)) if isinstance(part, ImageError) else pairs[name]
            for name, part in parts.items()
        }

    async def judge_texts(self, inputs: QueryInputs, texts: Mapping[str, str]) -> dict[str, PairScore]:
        """The same for texts, by their names."""
        return await self._judge(inputs, {name: {"text": text} for name, text in texts.items()}, texts.__getitem__)

    async def aclose(self, patience: float | None = None) -> None:
        """Ask for no more, and wait for the scores that were asked for, so that paid ones are kept; at most `patience`
        seconds, where given. The store stays open."""
        self._closing.set()
        if self._work:
            await asyncio.wait(self._work, timeout=patience)
        if isinstance(self._store, GroupWriter):
            await self._store.aclose()

    async def _judge(
        self, inputs: QueryInputs, documents: Mapping[str, Part], load: Callable[[str], Document]
    ) -> dict[str, PairScore]:
        await self.identify()
        query = await asyncio.to_thread(query_part, inputs)
        model = shown_name(self.fingerprint)
        requests = {name: {"query": query, "document": dict(part)} for name, part in documents.items()}
        keys = {name: pair_key(model, request) for name, request in requests.items()}
        judged: dict[str, PairScore] = {}
        waiting: dict[str, Awaitable[PairScore]] = {}
        missing: list[str] = []
        for name, key in keys.items():
            if (pair := await self._remembered(key)) is not None:
                judged[name] = pair
            elif key in self._in_flight:
                waiting[name] = self._in_flight[key]
            elif self._mode == "replay":
                raise missing_pair(model, key, name, inputs)
            else:
                waiting[name] = self._in_flight[key] = asyncio.get_running_loop().create_future()
                missing.append(name)
        if missing:
            task = asyncio.create_task(self._ask(inputs, {name: requests[name] for name in missing}, keys, load))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        for name, future in waiting.items():
            judged[name] = await asyncio.shield(future)
        self.hits += sum(pair.cached for pair in judged.values())
        return {name: judged[name] for name in documents}

    async def _ask(
        self,
        inputs: QueryInputs,
        missing: Mapping[str, Any],
        keys: Mapping[str, str],
        load: Callable[[str], Document],
    ) -> None:
        """Ask about documents, some at a time, commit their scores, and give them to the callers that wait."""
        names = list(missing)
        broken: PairScore | None = None
        try:
            for start in range(0, len(names), _AT_ONCE):
                if self._closing.is_set():
                    raise asyncio.CancelledError
                batch = names[start : start + _AT_ONCE]
                if broken is None:
                    try:
                        pairs = await asyncio.to_thread(self._score, inputs, batch, load)
                    except LMMResponseError as error:
                        pairs = {name: PairScore(None, one_line(error)) for name in batch}
                    except LMMError as error:  # of the server, so that the others would fail, too
                        broken = PairScore(None, one_line(error), server_failed=True)
                if broken is not None:
                    pairs = dict.fromkeys(batch, broken)
                await asyncio.gather(*(self._keep(keys[name], missing[name], pairs[name]) for name in batch))
                for name in batch:
                    self._land(keys[name], pairs[name])
        except BaseException as error:
            for name in missing:
                if (future := self._in_flight.pop(keys[name], None)) is not None:
                    _fail(future, error)
            if not isinstance(error, Exception):
                raise

    def _score(
        self, inputs: QueryInputs, names: Sequence[str], load: Callable[[str], Document]
    ) -> dict[str, PairScore]:
        """What the scorer says of some documents, in a worker thread."""
        documents: dict[str, Document] = {}
        pairs: dict[str, PairScore] = {}
        for name in names:
            try:
                documents[name] = load(name)
            except ImageError as error:
                pairs[name] = PairScore(None, one_line(error))
        if documents:
            if isinstance(self._scorer, ExplainingScorer):
                asked = self._scorer.ask(inputs, list(documents.values()))
            else:
                self._called += 1
                asked = [PairScore(value) for value in self._scorer.score(inputs, list(documents.values()))]
            pairs |= {name: _usable(pair) for name, pair in zip(documents, asked, strict=True)}
            self.pairs += len(documents)
            self.tokens += sum(pair.tokens for pair in asked)
        return pairs

    async def _keep(self, key: str, request: Any, pair: PairScore) -> None:
        if pair.value is None or self._mode == "off":
            return
        await self._store.put(score_entry(key, shown_name(self.fingerprint), request, pair), replace=True)

    def _land(self, key: str, pair: PairScore) -> None:
        self._in_flight.pop(key).set_result(replace(pair, key=key))

    async def _remembered(self, key: str) -> PairScore | None:
        """The score in the store; None where it has none to use and the scorer can be asked. Raises `CacheError` in a
        replay for an entry that is not what was recorded."""
        if self._mode in ("off", "refresh") or (entry := await self._store.get(key)) is None:
            return None
        try:
            return replace(read_score(entry), cached=True, key=key)
        except CacheError:
            if self._mode == "replay":
                raise
            return None

    def _parts(self, ids: Sequence[str]) -> dict[str, Part | ImageError]:
        parts: dict[str, Part | ImageError] = {}
        for name in ids:
            text = text_of(self._images, name)
            words = {"text": text} if text else {}
            if not has_image(self._images, name):
                parts[name] = {"text": text}
                continue
            known = self._images.known_hash(name) if isinstance(self._images, RemembersHashes) else None
            try:
                parts[name] = {"image": known or self._images.pixel_hash(name), **words}
            except ImageError as error:
                parts[name] = error
        return parts

    async def _identify(self) -> None:
        scorer = self._scorer
        if not isinstance(scorer, NegotiatingScorer) or scorer.form is not None:
            return
        base = await asyncio.to_thread(scorer.base)
        entry = await self._store.get(form_key(base)) if self._mode not in ("off", "refresh") else None
        if entry is not None and (form := read_form(entry)) is not None and scorer.use_form(form):
            return
        form = await asyncio.to_thread(scorer.find_form)
        if self._mode != "off":
            await self._store.put(form_entry(base, shown_name(self.fingerprint), form), replace=True)


class RecordedScorer:
    """Stands for a scorer behind a server in a replay, which asks nothing: only its fingerprint is needed."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        """Raises `CacheMissError`."""
        raise CacheMissError("a replay asks no scorer; run the command with the cache on")


def _usable(pair: PairScore) -> PairScore:
    """The score where it is a finite number."""
    if pair.value is None:
        return replace(pair, error=pair.error or "the scorer gave no score for this document")
    if not is_finite(pair.value):
        return replace(pair, value=None, error=f"the scorer's score is {pair.value}, which is no number")
    return replace(pair, value=float(pair.value))


def _fail(future: asyncio.Future[PairScore], error: BaseException) -> None:
    """Give the error to whoever waits."""
    if isinstance(error, Exception):
        future.set_exception(error)
        future.exception()  # looked at, so that asyncio does not complain where every caller was cancelled
    else:
        future.cancel()

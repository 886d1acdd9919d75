"""Any LMM over a `CacheStore`: what was asked once is never asked again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import ValidationError

from agent.lmm.base import LMM, LMMRequest, LMMResponse
from cache.store import CacheStore, Entry
from core.errors import CacheError, CacheMissError
from core.fingerprint import canonical_json

CacheMode = Literal["on", "refresh", "replay", "off"]
"""`on`: answer from the cache, else ask and remember. `refresh`: ask and overwrite. `replay`: answer from the cache,
never ask. `off`: ask and remember nothing."""

_SHOWN_PROMPT = 160  # characters of the prompt's end in the message of a miss


class CachedLMM:
    """An LMM that remembers.

    A response is committed to the store before it is returned, so "asked" means committed. Errors are not remembered.
    Requests with equal keys that are in flight at once are asked once, and a caller that is cancelled does not take
    the others' answer along. Serves one event loop; several processes may share a store.

    `calls` counts the calls that reached the model, `hits` the answers that cost none.
    """

    def __init__(self, lmm: LMM, store: CacheStore, mode: CacheMode = "on") -> None:
        self._lmm = lmm
        self._store = store
        self._mode = mode
        self._in_flight: dict[str, asyncio.Task[LMMResponse]] = {}
        self.calls = 0
        self.hits = 0

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer from the cache or from the model, as the mode says; `cached` tells which.

        Raises `CacheMissError` in replay for a call that was never recorded, `CacheError` for a store that fails.
        """
        if self._mode == "off":
            self.calls += 1
            return await self._lmm.generate(request)

        key = request.key(self.identity)
        if self._mode != "refresh":
            remembered = self._recall(key)
            if remembered is not None:
                self.hits += 1
                return remembered
            if self._mode == "replay":
                raise missing_call(self.identity, key, request)

        task = self._in_flight.get(key)
        if task is not None:
            response = await asyncio.shield(task)
            self.hits += 1
            return response.model_copy(update={"cached": True})
        task = asyncio.create_task(self._ask(key, request))
        self._in_flight[key] = task
        task.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(task)

    async def settle(self, patience: float) -> None:
        """Wait at most `patience` seconds for what is in flight, and give up what has no answer by then."""
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight.values(), timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def aclose(self) -> None:
        """Wait for what is in flight, so that paid answers are kept, then close the model. The store stays open."""
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        await self._lmm.aclose()

    async def _ask(self, key: str, request: LMMRequest) -> LMMResponse:
        self.calls += 1
        response = await self._lmm.generate(request)
        text = canonical_json(response.model_dump(mode="json", exclude={"cached"}))
        provenance = {
            "model": self.identity,
            "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "response_sha256": _checksum(text),
        }
        entry = Entry(
            key=key,
            request=canonical_json(request.model_dump(mode="json")),
            response=text,
            provenance=canonical_json(provenance),
        )
        self._store.put(entry, replace=self._mode == "refresh")
        return response

    def _land(self, key: str, task: asyncio.Task[LMMResponse]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain where every caller was cancelled

    def _recall(self, key: str) -> LMMResponse | None:
        entry = self._store.get(key)
        if entry is None:
            return None
        try:
            return LMMResponse.model_validate_json(entry.response).model_copy(update={"cached": True})
        except ValidationError as error:
            raise CacheError(f"cache entry {key[:12]} can't be read: ask again with the cache on refresh") from error


def missing_call(model: str, key: str, request: LMMRequest) -> CacheMissError:
    """The error of a replay: which call of which model is missing."""
    images = ", ".join(part.image_id for part in request.images) or "none"
    prompt = " ".join(request.text.split())
    prompt = prompt if len(prompt) <= _SHOWN_PROMPT else "..." + prompt[-_SHOWN_PROMPT:]
    return CacheMissError(
        f'replay: call {key} was never recorded (model {model}; images {images}; prompt "{prompt}"): '
        "record it with the cache on, or check that model, prompts and images are those of the recording"
    )


def entry_fault(entry: Entry) -> str | None:
    """Why an entry can't be what it says it is, None where it can: request, response and provenance can be read, the
    key is that of the request to that model, and the response has the checksum that was taken of it, if one was."""
    try:
        provenance = json.loads(entry.provenance)
        model, checksum = provenance["model"], provenance.get("response_sha256")
        request = LMMRequest.model_validate_json(entry.request)
        LMMResponse.model_validate_json(entry.response)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "it can't be read"
    if request.key(str(model)) != entry.key:
        return "its key is not that of its request"
    if checksum is not None and _checksum(entry.response) != checksum:
        return "its response was altered"
    return None


def _checksum(response: str) -> str:
    return sha256(response.encode()).hexdigest()

"""Any LMM over a `CacheStore`: an answered request is never sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import ValidationError

from fieldscope.agent.lmm.acceptance import fault
from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.agent.lmm.identity import named_identity
from fieldscope.cache.store import AnyStore, Entry
from fieldscope.cache.writer import GroupWriter, as_async
from fieldscope.core.errors import CacheError, CacheMissError
from fieldscope.core.fingerprint import canonical_json

CacheMode = Literal["on", "refresh", "replay", "off"]
"""`on`: answer from the cache, else ask and remember. `refresh`: ask and overwrite. `replay`: answer from the cache,
never ask. `off`: ask and remember nothing."""

_SHOWN_PROMPT = 160  # characters of the prompt's end in the message of a miss


@runtime_checkable
class Adapts(Protocol):
    """A model that may not take everything of a request."""

    async def stands(self, request: LMMRequest, response: LMMResponse) -> bool:
        """Whether a remembered response still is the best answer to be had."""
        ...


class CachedLMM:
    """An LMM that remembers.

    A response is committed to the store before it is returned, so "asked" means committed. Errors are not remembered,
    and neither are answers that can't be used (`fieldscope.agent.lmm.acceptance`): they are returned, and asked for
    again the next time. So is an answer in the store that can't be used, can't be read or was altered; the new one
    takes its place. A replay asks nothing: it gives what can't be used as it was recorded, so that a run that rests on
    it is the same run.

    An answer that was recorded when an identity had nothing yet of what the server tells (`named_identity`) is found,
    and kept under the new identity too. It then belongs to that one, and to no other server under the same name.

    Requests with equal keys that are in flight at once are asked once, and a caller that is cancelled does not take
    the others' answer along. Serves one event loop; several processes may share a store.

    `identify` sees to it that the model's identity is known: it is called before each request, and does nothing where
    it is. `calls` counts the calls that reached the model, `hits` the answers that cost none, and `inherited` those
    among them that were recorded under the server's name alone.
    """

    def __init__(
        self,
        lmm: LMM,
        store: AnyStore,
        mode: CacheMode = "on",
        identify: Callable[[], Awaitable[object]] | None = None,
        stands: Callable[[LMMRequest, LMMResponse], Awaitable[bool]] | None = None,
    ) -> None:
        self._lmm = lmm
        self._store = as_async(store)
        self._mode = mode
        self._identify = identify
        self._stands = stands
        self._in_flight: dict[str, asyncio.Task[LMMResponse]] = {}
        self.calls = 0
        self.hits = 0
        self.inherited = 0

    @property
    def identity(self) -> str:
        return self._lmm.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Answer from the cache or from the model, as the mode says; `cached` tells which.

        Raises `CacheMissError` in replay for a call that was never recorded, `CacheError` for a store that fails.
        """
        if self._identify is not None:
            await self._identify()
        if self._mode == "off":
            self.calls += 1
            return await self._lmm.generate(request)

        key = request.key(self.identity)
        found = await self._store.get(key) if self._mode != "refresh" else None
        if found is not None and (remembered := self._read(found, request)) and await self._holds(request, remembered):
            self.hits += 1
            return remembered

        task = self._in_flight.get(key)
        if task is not None:
            response = await asyncio.shield(task)
            self.hits += 1
            return response.model_copy(update={"cached": True})
        task = asyncio.create_task(self._answer(key, request, replace=self._mode == "refresh" or found is not None))
        self._in_flight[key] = task
        task.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(task)

    async def drain(self, patience: float) -> None:
        """Wait at most `patience` seconds for what is in flight, and give up what has no answer by then."""
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight.values(), timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def aclose(self) -> None:
        """Wait for what is in flight, so that paid answers are kept, then close the model. The store stays open."""
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        if isinstance(self._store, GroupWriter):
            await self._store.aclose()
        await self._lmm.aclose()

    async def _answer(self, key: str, request: LMMRequest, replace: bool) -> LMMResponse:
        """The answer to a request that the store has no usable answer to under this key."""
        if self._mode != "refresh" and (inherited := await self._inherit(key, request, replace)):
            self.hits += 1
            self.inherited += 1
            return inherited
        if self._mode == "replay":
            raise missing_call(self.identity, key, request)
        self.calls += 1
        response = await self._lmm.generate(request)
        if fault(request, response) is None:
            await self._store.put(self._entry(key, request, response), replace)
        return response

    def _entry(self, key: str, request: LMMRequest, response: LMMResponse) -> Entry:
        text = canonical_json(response.model_dump(mode="json", exclude={"cached"}))
        provenance = {
            "model": self.identity,
            "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "response_sha256": _checksum(text),
        }
        return Entry(
            key=key,
            request=canonical_json(request.model_dump(mode="json")),
            response=text,
            provenance=canonical_json(provenance),
        )

    def _land(self, key: str, task: asyncio.Task[LMMResponse]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain where every caller was cancelled

    def _read(self, entry: Entry, request: LMMRequest) -> LMMResponse | None:
        """The answer in an entry, None where it has none to use and the model can be asked again. Raises `CacheError`
        in a replay for an entry that is not what was recorded."""
        try:
            response = read_response(entry)
        except CacheError:
            if self._mode == "replay":
                raise
            return None
        if self._mode != "replay" and fault(request, response) is not None:
            return None
        return response.model_copy(update={"cached": True})

    async def _holds(self, request: LMMRequest, remembered: LMMResponse) -> bool:
        if not remembered.adapted or self._mode == "replay" or self._stands is None:
            return True
        return await self._stands(request, remembered)

    async def _inherit(self, key: str, request: LMMRequest, replace: bool) -> LMMResponse | None:
        """The answer that was recorded under the server's name alone, unless it turned out to be another server's."""
        named = named_identity(self.identity)
        entry = await self._store.get(request.key(named)) if named != self.identity else None
        if entry is None or (response := self._read(entry, request)) is None:
            return None
        provenance = json.loads(entry.provenance)
        if provenance.get("served_by", self.identity) != self.identity:
            return None
        if self._mode != "replay":  # which changes nothing
            owned = canonical_json({**provenance, "served_by": self.identity})
            copied = canonical_json({**provenance, "model": self.identity, "recorded_as": named})
            await self._store.put(Entry(entry.key, entry.request, entry.response, owned), replace=True)
            await self._store.put(Entry(key, entry.request, entry.response, copied), replace)
        return response


def missing_call(model: str, key: str, request: LMMRequest) -> CacheMissError:
    """The error of a replay: which call of which model is missing."""
    images = ", ".join(part.image_id for part in request.images) or "none"
    prompt = " ".join(request.text.split())
    prompt = prompt if len(prompt) <= _SHOWN_PROMPT else "..." + prompt[-_SHOWN_PROMPT:]
    return CacheMissError(
        f'replay: call {key} was never recorded (model {model}; images {images}; prompt "{prompt}"): '
        "record it with the cache on, or check that model, prompts and images are those of the recording"
    )


def read_response(entry: Entry) -> LMMResponse:
    """The response in an entry. Raises `CacheError` where it can't be read, or was altered since it was recorded."""
    require_unaltered(entry)
    try:
        return LMMResponse.model_validate_json(entry.response)
    except ValidationError as error:
        raise _unusable(entry, "can't be read") from error


def require_unaltered(entry: Entry) -> None:
    """Raise `CacheError` where the response in an entry has not the checksum that was taken of it, if one was."""
    try:
        provenance = json.loads(entry.provenance)
    except (ValueError, RecursionError) as error:
        raise _unusable(entry, "can't be read") from error
    if not isinstance(provenance, dict) or _is_altered(entry, provenance):
        raise _unusable(entry, "was altered")


def entry_fault(entry: Entry) -> str | None:
    """Why an entry can't be what it says it is, None where it can: request, response and provenance can be read, the
    key is that of the request to that model, and the response has the checksum that was taken of it, if one was."""
    try:
        provenance = json.loads(entry.provenance)
        model = provenance["model"]
        request = LMMRequest.model_validate_json(entry.request)
        LMMResponse.model_validate_json(entry.response)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "it can't be read"
    if request.key(str(model)) != entry.key:
        return "its key is not that of its request"
    if _is_altered(entry, provenance):
        return "its response was altered"
    return None


def answer_fault(entry: Entry) -> str | None:
    """Why the answer in a sound entry can't be used, None where it can. It is asked for again when it is needed."""
    return fault(LMMRequest.model_validate_json(entry.request), LMMResponse.model_validate_json(entry.response))


def _unusable(entry: Entry, why: str) -> CacheError:
    return CacheError(f"the cached answer {entry.key[:12]} {why}; run the command without --replay to ask for it again")


def _is_altered(entry: Entry, provenance: Mapping[str, Any]) -> bool:
    checksum = provenance.get("response_sha256")
    return checksum is not None and _checksum(entry.response) != checksum


def _checksum(response: str) -> str:
    return sha256(response.encode()).hexdigest()

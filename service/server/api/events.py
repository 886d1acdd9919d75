"""Server-sent events: how they are written, and how a client that reads slowly holds nobody up."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.responses import StreamingResponse

from fieldscope.agent.types import TraceEvent
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.server.api.errors import LOG, as_api_error

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = b": still here\n\n"
EVERY = 15.0
"""Seconds of silence after which a comment shows client and proxies that the connection lives."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One event.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "description": "Its kind."},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."},
        "id": {"type": "string", "description": "Its number, where it can be taken up again."},
    },
    "examples": [{"event": "verified", "data": '{"image_id": "fieldscope://fieldnotes/1", "at": 0.2}'}],
}
"""An event in the OpenAPI document, which describes a stream by what it is made of."""

UNFORESEEN = "something unexpected went wrong here; the service's log says what"

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_WAITING = 1000  # events for one client


@dataclass(frozen=True)
class Event:
    """One event: its kind, its data as JSON on one line, and for what can be taken up again its number (from 1)."""

    kind: str
    data: str
    number: int | None = None

    def encode(self) -> bytes:
        """As it goes over the wire."""
        number = "" if self.number is None else f"id: {self.number}\n"
        return f"{number}event: {self.kind}\ndata: {self.data}\n\n".encode()


def event(kind: str, data: Mapping[str, Any]) -> Event:
    """An event without a number."""
    return Event(kind, json.dumps(data, ensure_ascii=False))


def told(happened: TraceEvent) -> dict[str, Any]:
    """A trace event as a client gets it: its data, and `at`, in seconds since the query began."""
    return {**happened.data, "at": round(happened.at, 3)}


def failure(error: Exception) -> dict[str, Any]:
    """An error as it is told where no status can be: in the middle of a stream, or in a job. What nobody foresaw goes
    to the log, and not out."""
    if isinstance(error, FieldscopeError):
        known = as_api_error(error)
        return {"error": {"code": known.code, "message": str(known)}}
    LOG.error("a call failed", exc_info=error)
    return {"error": {"code": "internal_error", "message": UNFORESEEN}}


class Feed:
    """Events on their way to one client. `put` never waits: of a client that reads slowly the oldest events are dropped
    once so many wait, and a `missed` event says how many."""

    def __init__(self, waiting: int = _WAITING) -> None:
        self._events: deque[Event] = deque(maxlen=waiting)
        self._missed = 0
        self._news = asyncio.Event()

    def put(self, happened: Event) -> None:
        self._missed += len(self._events) == self._events.maxlen
        self._events.append(happened)
        self._news.set()

    async def during(self, begin: Callable[[], Coroutine[Any, Any, Event]]) -> AsyncGenerator[Event]:
        """What is put while the work goes on, then what it returns. Whoever stops reading stops the work."""
        work = asyncio.create_task(begin())
        work.add_done_callback(lambda _: self._news.set())
        try:
            while not (work.done() and not self._events):
                await self._news.wait()
                self._news.clear()
                while self._events:
                    missed, self._missed = self._missed, 0
                    if missed:
                        yield event("missed", {"events": missed})
                    yield self._events.popleft()
            yield work.result()
        finally:
            work.cancel()


def stream(events: AsyncGenerator[Event], every: float = EVERY) -> StreamingResponse:
    """The response that sends events as they come."""
    return StreamingResponse(_encoded(events, every), media_type=MEDIA_TYPE, headers=_HEADERS)


async def _encoded(events: AsyncGenerator[Event], every: float) -> AsyncIterator[bytes]:
    """The bytes of events, with a comment wherever nothing comes for a while."""
    coming: asyncio.Task[Event | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait({coming}, timeout=every)
            if not done:
                yield HEARTBEAT
                continue
            happened, coming = coming.result(), None
            if happened is None:
                return
            yield happened.encode()
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
        await events.aclose()


async def _next(events: AsyncGenerator[Event]) -> Event | None:
    return await anext(events, None)

"""Server-sent events, which never wait for a client that reads slowly."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from fieldscope.agent.types import TraceEvent
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.server.api.errors import LOG, UNEXPECTED, as_api_error

MEDIA_TYPE = "text/event-stream"
EVERY = 15.0
"""Seconds of silence after which a comment keeps the connection open."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One event.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "description": "Its kind."},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."},
        "id": {"type": "string", "description": "Its number, if the stream can be resumed."},
    },
    "examples": [{"event": "verified", "data": '{"image_id": "fieldscope://fieldnotes/1", "at": 0.2}'}],
}
"""An event in the OpenAPI document."""

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_WAITING = 1000  # events for one client


@dataclass(frozen=True)
class Event:
    """One event: its kind, its data as JSON on one line, and its number (from 1) if the stream can be resumed."""

    kind: str
    data: str
    number: int | None = None

    def encode(self) -> bytes:
        """The event's bytes."""
        number = None if self.number is None else str(self.number)
        return format_sse_event(event=self.kind, data_str=self.data, id=number)


def event(kind: str, data: Mapping[str, Any]) -> Event:
    """An event without a number."""
    return Event(kind, json.dumps(data, ensure_ascii=False))


def event_data(traced: TraceEvent) -> dict[str, Any]:
    """A trace event's data for a client, with `at`, in seconds since the query began."""
    return {**traced.data, "at": round(traced.at, 3)}


def failure(error: Exception) -> dict[str, Any]:
    """An error in the middle of a stream or in a job, where it can't be a status. An unexpected exception goes to the
    log only."""
    if isinstance(error, FieldscopeError):
        api_error = as_api_error(error)
        return {"error": {"code": api_error.code, "message": str(api_error)}}
    LOG.error("a call failed", exc_info=error)
    return {"error": {"code": "internal_error", "message": UNEXPECTED}}


class Feed:
    """Events for one client. `put` never waits: if more than `waiting` events wait for a slow client, the oldest are
    dropped, and a `missed` event says how many."""

    def __init__(self, waiting: int = _WAITING) -> None:
        self._events: deque[Event] = deque(maxlen=waiting)
        self._missed = 0
        self._news = asyncio.Event()

    def put(self, new: Event) -> None:
        self._missed += len(self._events) == self._events.maxlen
        self._events.append(new)
        self._news.set()

    async def during(self, begin: Callable[[], Coroutine[Any, Any, Event]]) -> AsyncGenerator[Event]:
        """The events that are put during the work, then the one that it returns. A reader that stops cancels the
        work."""
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
    """The response that sends events as they happen."""
    return StreamingResponse(_encoded(events, every), media_type=MEDIA_TYPE, headers=_HEADERS)


async def _encoded(events: AsyncGenerator[Event], every: float) -> AsyncIterator[bytes]:
    """The bytes of events, with a comment after each pause of `every` seconds."""
    coming: asyncio.Task[Event | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait({coming}, timeout=every)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            arrived, coming = coming.result(), None
            if arrived is None:
                return
            yield arrived.encode()
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
        await events.aclose()


async def _next(events: AsyncGenerator[Event]) -> Event | None:
    return await anext(events, None)

"""A log line for every request, and an end to requests whose client has gone."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldscope.service.server.api.errors import unexpected_response

LOG = logging.getLogger("fieldscope.access")
REQUEST_ID = "X-Request-Id"
TRACE_ID = "X-Fieldscope-Trace"

CLIENT_GONE = 499
"""The status of a request whose client left before the reply; nginx logs the same."""

_CLIENTS_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SHOWN_PATH = 200


class Access:
    """One JSON line a request: method, path, status, milliseconds, request id, and the trace's id where there is one.

    A client's own `X-Request-Id` is kept where it looks like one. The path is logged without the query string, and
    bodies are not logged. `replied` gets each request's scope, status and seconds. An unexpected exception becomes a
    reply with status 500.
    """

    def __init__(self, app: ASGIApp, replied: Callable[[Scope, int, float], None]) -> None:
        self._app = app
        self._replied = replied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        sent_id = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent_id if _CLIENTS_ID.fullmatch(sent_id) else uuid4().hex
        line: dict[str, Any] = {"method": scope["method"], "path": scope["path"][:_SHOWN_PATH], "status": CLIENT_GONE}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                line["status"] = message["status"]
                if trace := headers.get(TRACE_ID):
                    line["trace"] = trace
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if line["status"] != CLIENT_GONE:  # half of a reply is sent; the server cuts the connection
                raise
            await unexpected_response(error, scope["method"], scope["path"])(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            self._replied(scope, line["status"], seconds)
            line |= {"ms": round(1000 * seconds, 1), "request": request_id}
            LOG.info(json.dumps(line))


class Hangup:
    """Cancels the work of a request whose client has gone, so that other calls need not wait for it.

    It listens once the body is read to its end: until then the reader of the body learns of it. Work after a complete
    reply is not cancelled.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gone = asyncio.Event()
        listener: asyncio.Task[None] | None = None
        done = hung_up = False
        work = asyncio.current_task()
        assert work is not None

        async def listen() -> None:
            nonlocal hung_up
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            if not done:
                hung_up = True
                work.cancel()

        async def receiving() -> Message:
            nonlocal listener
            if listener is not None:
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                listener = asyncio.create_task(listen())
            return message

        async def sending(message: Message) -> None:
            nonlocal done
            await send(message)
            done = done or (message["type"] == "http.response.body" and not message.get("more_body", False))

        try:
            await self._app(scope, receiving, sending)
        except asyncio.CancelledError:
            if not hung_up or work.uncancel() > 0:  # it was cancelled from elsewhere, too
                raise
        finally:
            if listener is not None:
                listener.cancel()

"""Every request gets a number and a line in the log; one whose client has gone is stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldscope.service.server.api.errors import unexpected_response

LOG = logging.getLogger("fieldscope.access")
REQUEST_ID = "X-Request-Id"
TRACE_ID = "X-Fieldscope-Trace"

CLIENT_GONE = 499
"""The status, as nginx logs it, of a reply that nobody was left to get."""

_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SHOWN_PATH = 200


class Access:
    """One JSON line a request: method, path, status, milliseconds, request id, and the trace's id where there is one.

    A client's own `X-Request-Id` is kept where it looks like one. The path is logged without the query string, and
    nothing of any body. What nobody foresaw goes out as an error like any other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _GIVEN.fullmatch(given) else uuid4().hex
        line = {"method": scope["method"], "path": scope["path"][:_SHOWN_PATH], "status": CLIENT_GONE}

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
            if line["status"] != CLIENT_GONE:  # half of a reply is out; the server cuts the connection
                raise
            await unexpected_response(error, scope["method"], scope["path"])(scope, receive, sending)
        finally:
            line |= {"ms": round(1000 * (time.perf_counter() - began), 1), "request": request_id}
            LOG.info(json.dumps(line))


class Hangup:
    """Cancels the work of a request whose client has gone, so that nobody waits behind it for nothing.

    It listens once the body is read to its end: until then whoever reads the body learns of it. A reply that is out
    already is not disturbed, nor what is done after it.
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
            if not hung_up or work.uncancel() > 0:  # somebody else, too, wants this to end
                raise
        finally:
            if listener is not None:
                listener.cancel()

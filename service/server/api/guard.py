"""Checks of a request's key, origin and size. Pure ASGI, so that a body is refused while it streams."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldscope.service.server.api.errors import ApiError, error_response
from fieldscope.service.server.api.keys import KeyFile
from fieldscope.service.server.settings import is_loopback

OPEN_TO_ALL = frozenset({"/healthz", "/readyz"})
"""Paths without a key, for monitoring."""

API = ("/v1/", "/v2/", "/rerank")
_BODIES = frozenset({"POST", "PUT", "PATCH"})
_MOST_VALUES = 3_000_000
"""Values in a body, counted by the characters between them: once parsed, a value may take a hundred times its bytes. A
job of a thousand calls with a thousand documents each has fewer."""

_BODY_PAUSE = 30.0
"""Seconds between two parts of a body."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Guard:
    """Refuses requests before their body is read.

    - As soon as there is a key in `keys`, or if other machines reach the service (`public`), each request needs one:
      `Authorization: Bearer`, `X-API-Key`, or for a browser the password of `Authorization: Basic`.
    - Without keys, `Host` must name this machine: another name that was made to point here (DNS rebinding) is refused.
    - `Origin`, if a browser sends it, must be the service's own, so that no foreign page can post; a key in a header
      that no foreign page can set replaces this check.
    - A body is JSON, has at most `max_body` bytes, declared or not, and arrives within `max_seconds`.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyFile, max_body: int, max_seconds: float, public: bool) -> None:
        self._app = app
        self._keys = keys
        self._locked = public
        self._max_body = max_body
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # not supported, and the checks below are for requests
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
        except ApiError as error:
            extra = {"Connection": "close"}  # the rest of the body is not read
            if error.status == 401:
                extra["WWW-Authenticate"] = _challenge(headers)
            await error_response(error.status, error.code, str(error), extra)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, self._max_body, self._max_seconds), send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        by_header = self._check_key(scope, headers) if self._needs_key() else _check_host(headers)
        if not by_header:
            _check_origin(headers)
        declared = headers.get("content-length")
        if declared is not None and (not declared.isdecimal() or int(declared[:20]) > self._max_body):
            raise ApiError(413, "body_too_large", _too_large(self._max_body))
        if scope["method"] in _BODIES and scope["path"].startswith(API) and _has_body(headers):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
                raise ApiError(
                    415, "unsupported_media_type", "the body is not JSON; send it with Content-Type: application/json"
                )

    def _needs_key(self) -> bool:
        """Whether there was ever a key: to remove the last one does not open the service."""
        self._locked = self._locked or bool(self._keys.all())
        return self._locked

    def _check_key(self, scope: Scope, headers: Headers) -> bool:
        """Whether the key came in a header that only a program sets. Raises `ApiError` for a missing or wrong key."""
        if scope["path"] in OPEN_TO_ALL:
            return False
        secret, by_program = _secret(headers)
        if not secret:
            raise ApiError(
                401, "no_key", "this service needs an API key; send Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        if self._keys.owner(secret) is None:
            raise ApiError(
                401, "wrong_key", "this service does not know this API key; make one with `fieldscope keys add`"
            )
        return by_program


def _secret(headers: Headers) -> tuple[str, bool]:
    """The key of a request, and whether it came in a header that a browser does not send by itself."""
    if key := headers.get("x-api-key"):
        return key, True
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip(), True
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2], False
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return "", False
    return "", False


def _challenge(headers: Headers) -> str:
    """The challenge that makes a browser ask its user for the key as a password, or that tells a program the scheme."""
    return 'Basic realm="fieldscope"' if "text/html" in headers.get("accept", "") else "Bearer"


def _check_host(headers: Headers) -> bool:
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_loopback(_name(hosts[0])):
        raise ApiError(
            403,
            "foreign_host",
            "without API keys the service answers only at localhost and 127.0.0.1; use one of these",
        )
    return False


def _check_origin(headers: Headers) -> None:
    origins = headers.getlist("origin")
    if not origins or (origins == ["null"] and headers.get("sec-fetch-site") == "same-origin"):
        return  # pages without a referrer send `null` with forms; no script can set the other header
    try:
        origin = urlsplit(origins[0])
        port = origin.port or _DEFAULT_PORTS.get(origin.scheme)
        host = urlsplit("//" + headers.get("host", ""))
        same = (origin.hostname, port) == (host.hostname, host.port or _DEFAULT_PORTS.get(origin.scheme))
    except ValueError:
        same = False
    if len(origins) > 1 or not same or not origin.hostname:
        raise ApiError(
            403,
            "foreign_origin",
            "a page of another site sent this request; use this service's own pages, or send a key",
        )


def _name(host: str) -> str:
    """A `Host` header without its port."""
    try:
        return urlsplit("//" + host).hostname or ""
    except ValueError:
        return ""


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _bounded(receive: Receive, most: int, seconds: float) -> Callable[[], Awaitable[Message]]:
    """`receive`, which fails once a body has more than `most` bytes, takes more than `seconds`, or pauses for too
    long."""
    seen = values = 0
    ended = False
    until = asyncio.get_running_loop().time() + seconds

    async def bounded() -> Message:
        nonlocal seen, values, ended
        if ended:
            return await receive()
        try:
            left = until - asyncio.get_running_loop().time()
            async with asyncio.timeout(min(_BODY_PAUSE, left)):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(
                408, "the body did not arrive in time; send it without pauses", {"Connection": "close"}
            ) from error
        if message["type"] == "http.request":
            body = message.get("body", b"")
            ended = not message.get("more_body", False)
            seen += len(body)
            values += sum(map(body.count, (b",", b"[", b"{")))
            # FastAPI lets this one exception through where it reads a body.
            if seen > most:
                raise HTTPException(413, _too_large(most), {"Connection": "close"})
            if values > _MOST_VALUES:
                sentence = f"the body holds more than {_MOST_VALUES:,} values; send them in several calls"
                raise HTTPException(413, sentence, {"Connection": "close"})
        return message

    return bounded


def _too_large(most: int) -> str:
    return f"the body has more than {most:,} bytes; send fewer or smaller images, or name them by their ids"

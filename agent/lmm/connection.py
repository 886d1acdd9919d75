"""HTTP to an OpenAI-compatible server: pages, calls, and what their failures are in our error tree."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx2
import openai
import orjson

from fieldscope.core.errors import (
    FieldscopeError,
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    one_line,
)
from fieldscope.core.server_failure import BUSY, KEY_REFUSED, OVERLOADED, key_advice, read_retry_after, status_error
from fieldscope.core.server_words import connection_advice, require_usable_environment, server_words, without_key

_CONNECT_TIMEOUT = 10.0
_NO_LIMITS = httpx2.Limits(max_connections=0)  # none, in aiohttp's terms


class Connection:
    """Connections to the addresses of one model, with its key.

    `timeout` (seconds) is for one answer, from first to last byte. Every method raises the `LMMError` that fits, whose
    text does not show the key.
    """

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        require_usable_environment()
        limits = httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
        self._key = key
        self._timeout = timeout
        self._limits = {"timeout": limits.as_dict()}
        self._http = _http_client(limits)
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key or "none", timeout=limits, max_retries=0, http_client=self._http
        )
        self._headers = {
            name: value
            for name, value in self._client.default_headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")  # which tell of the library
        } | {"Authorization": f"Bearer {self._client.api_key}", "Content-Type": "application/json"}

    async def get(self, url: str, path: str) -> str:
        """A page of the server at `url`."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.get(url + path, cast_to=str)
        except (openai.OpenAIError, TimeoutError) as error:
            raise lmm_error(error, url, self._timeout, self._key) from error

    async def page(self, url: str, path: str) -> str | None:
        """A page of the server at `url`; None where it has none, or none for us."""
        try:
            return await self.get(url, path)
        except LMMError as error:
            cause = error.__cause__
            if isinstance(cause, openai.APIStatusError) and cause.status_code not in BUSY:
                return None
            raise

    async def post(self, url: str, path: str, body: Mapping[str, Any]) -> str:
        """The answer to a JSON body, in which an `orjson.Fragment` stands for JSON that is already written."""
        try:
            content = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
            async with asyncio.timeout(self._timeout):  # the client's own timeout starts again with each byte
                return await self._send(url + path, content)
        except (openai.OpenAIError, TimeoutError, orjson.JSONEncodeError) as error:
            raise lmm_error(error, url, self._timeout, self._key) from error

    async def aclose(self) -> None:
        await self._client.close()

    async def _send(self, url: str, content: bytes) -> str:
        """The body of the answer. Raises the openai library's errors; the library itself would read and write the JSON
        once more on the way, which takes longer than all the rest of a call."""
        request = httpx2.Request("POST", url, headers=self._headers, content=content, extensions=self._limits)
        try:
            response = await self._http.send(request)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request) from error
        except (httpx2.RequestError, aiohttp.ClientError) as error:
            raise openai.APIConnectionError(request=request) from error
        if response.is_success:
            return response.text
        try:
            body = response.json()
        except ValueError:
            body = response.text
        said = body.get("error", body) if isinstance(body, dict) else body
        raise openai.APIStatusError(f"Error code: {response.status_code}", response=response, body=said)


def lmm_error(error: Exception, url: str, timeout: float, key: str | None = None) -> FieldscopeError:
    """What a failure of the openai library is in our tree, in one line that says what to do and hides the `key`."""
    match error:
        case openai.APITimeoutError() | TimeoutError() if _timed_out(error):
            return LMMConnectionError(
                f"{url} did not answer within {timeout:g} s: allow more time, or send it fewer requests at once"
            )
        case openai.APIConnectionError():
            advice, can_pass = connection_advice(_origin(error), url)
            return (LMMConnectionError if can_pass else LMMRequestError)(without_key(advice, key))
        case openai.APIStatusError(status_code=status):
            words, body = server_words(error.body, key) or one_line(error), str(error.body)
            said = f"{url} answered {status}: {words}"
            pause = read_retry_after(error.response.headers.get("retry-after", ""))
            if status in KEY_REFUSED:
                return LMMRequestError(f"{said}; {key_advice(key)}", words, body)
            return status_error(status, said, pause, body, words)
        case openai.APIError() | openai.LengthFinishReasonError() | openai.ContentFilterFinishReasonError():
            return LMMResponseError(f"{url} gave no usable answer: {one_line(error)}; see the server's log")
        case _:
            return LMMRequestError(
                f"the request to {url} could not be made: {one_line(error)}; check the server's address and its API key"
            )


def is_overload(error: LMMError) -> bool:
    """Whether a server has more calls than it can answer: it says so, or lets them time out."""
    cause = error.__cause__
    return (
        _timed_out(cause) or isinstance(error, LMMRateLimitError) or getattr(cause, "status_code", None) in OVERLOADED
    )


def _http_client(limits: httpx2.Timeout) -> httpx2.AsyncClient:
    """A client with aiohttp underneath, which takes a third of the CPU that httpx takes; SOCKS needs httpx itself."""
    if any(address.lower().startswith("socks") for address in getproxies().values()):
        return httpx2.AsyncClient(timeout=limits, limits=httpx2.Limits(), follow_redirects=True)
    return openai.DefaultAioHttpClient(timeout=limits, limits=_NO_LIMITS, follow_redirects=True)


def _timed_out(error: BaseException | None) -> bool:
    """Whether an answer took too long. A connection that was lost goes by the same name, unless one looks at what
    aiohttp said."""
    origin = _origin(error) if isinstance(error, openai.APITimeoutError) else error
    lost = isinstance(origin, aiohttp.ClientConnectionError | OSError) and not isinstance(origin, TimeoutError)
    return isinstance(error, openai.APITimeoutError | TimeoutError) and not lost


def _origin(error: BaseException) -> BaseException:
    """The first cause. Where aiohttp could not connect, that is the system's error, without its own words around it."""
    while error.__cause__ is not None and not isinstance(error, aiohttp.ClientError):
        error = error.__cause__
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return error.certificate_error
        case aiohttp.ClientConnectorError():
            return error.os_error
        case _:
            return error

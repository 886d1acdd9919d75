"""An LMM behind an OpenAI-compatible server: vLLM first, any other that speaks chat completions."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import openai
from PIL import Image as PILImage
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.lmm.chat_request import chat_request
from fieldscope.agent.lmm.completion import one_line, read_completion, read_models
from fieldscope.agent.lmm.failure import status_error
from fieldscope.agent.lmm.identity import server_identity
from fieldscope.agent.lmm.pixels import load_pixels
from fieldscope.agent.lmm.server_facts import Served, read_facts
from fieldscope.agent.lmm.server_words import (
    connection_advice,
    context_length,
    require_usable_environment,
    server_words,
    usable_key,
    without_key,
)
from fieldscope.core.errors import (
    ConfigError,
    FieldscopeError,
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
)
from fieldscope.core.private import shown_address
from fieldscope.core.types import ImageSource

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause than this (Retry-After) is taken at its word: the call fails."""

_CAN_PASS = (LMMConnectionError, LMMRateLimitError, LMMServerError)
_BUSY = {408, 409, 425, 429, 502, 503, 504}  # says nothing of whether there is such a page
_REFUSED_KEY = {401, 403}
_KEY_ADVICE = {
    False: "put the server's API key in FIELDSCOPE_API_KEY",
    True: "check that the API key in FIELDSCOPE_API_KEY is this server's, and may use this model",
}
_REMEMBERED_IMAGES = 64
_CONNECT_TIMEOUT = 10.0


class OpenAILMM:
    """An LMM over HTTP, for one event loop.

    `base_url` is the server's address, as in `http://localhost:8000` (`/v1` is added where there is no path); `model`
    the name it serves the model under; `revision` whatever tells two models of that name apart, since a server doesn't
    say which weights it holds. The key comes from `api_key`, else FIELDSCOPE_API_KEY, else OPENAI_API_KEY;
    an empty `api_key` is no key.

    Images travel as PNG data URLs, so the server sees the very pixels; `max_side` (pixels) scales larger ones down.
    At most `max_concurrency` calls are out at once, a call that waits to be tried again among them, so a struggling
    server isn't given more. `timeout` (seconds) is for one attempt from first to last byte. An attempt is repeated,
    up to `attempts` in all, only where it can pass: no connection, no answer in time, or status 408, 409, 425, 429
    or 5xx. It waits for as long as the server says in `Retry-After`, plus a random time below `backoff` seconds,
    doubled each time; `sleep` is how it waits.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        images: ImageSource,
        *,
        api_key: str | None = None,
        revision: str | None = None,
        max_side: int | None = None,
        max_concurrency: int = 32,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 0.5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = _server_url(base_url)
        self.model = model
        self._images = images
        self._max_side = max_side
        self._revision = revision
        self._facts: Mapping[str, str] | None = None
        self._identifying: asyncio.Task[Mapping[str, str]] | None = None
        self._timeout = timeout
        self._slots = asyncio.Semaphore(max_concurrency)
        variables = () if api_key == "" else ("FIELDSCOPE_API_KEY", "OPENAI_API_KEY")
        self._key = usable_key(api_key, *map(os.environ.get, variables))
        require_usable_environment()
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            max_retries=0,
        )
        self._retrying = AsyncRetrying(
            sleep=sleep,
            retry=retry_if_exception_type(_CAN_PASS),
            stop=lambda state: state.attempt_number >= attempts or (_pause_asked(state) or 0.0) > LONGEST_WAIT,
            wait=lambda state: (_pause_asked(state) or 0.0) + wait_random_exponential(backoff, max=30.0)(state),
            reraise=True,
        )
        self._data_url = lru_cache(maxsize=_REMEMBERED_IMAGES)(self._encode)

    @property
    def identity(self) -> str:
        """The model's name and revision, how images are sent, and, once `identify` has asked, what the server tells."""
        return server_identity(self.model, self._revision, self._max_side, self._facts)

    async def identify(self) -> Mapping[str, str]:
        """What the server tells of the model (`fieldscope.agent.lmm.server_facts`), asked for once; costs no tokens.

        Raises an `LMMError` where the server does not answer, or serves other models only.
        """
        if self._facts is None:
            if self._identifying is None or self._identifying.done():
                retrying = self._retrying.copy()
                self._identifying = asyncio.ensure_future(retrying(self._ask_facts))
            self._facts = await asyncio.shield(self._identifying)  # others may wait for it, too
        return self._facts

    async def generate(self, request: LMMRequest) -> LMMResponse:
        """Ask the server.

        Raises the `LMMError` that fits, `ImageError` for an unreadable image. A server that gives no log-probabilities
        where some were asked for is an `LMMResponseError`, so that no such answer is ever cached.
        """
        with self._discreet():
            response, _ = await self.exchange(request)
        return response

    async def exchange(self, request: LMMRequest) -> tuple[LMMResponse, str]:
        """What `generate` returns, and the JSON in which the server wrote it."""
        async with self._slots:
            body = await chat_request(request, self.model, self._image_part)
            retrying = self._retrying.copy()  # an object of tenacity's holds the state of one call
            answered: tuple[LMMResponse, str] = await retrying(self._ask, body, request)
        return answered

    async def check(self) -> Served:
        """What the server's list of models says of the model. Raises an `LMMError` where the server does not answer, or
        serves other models. One attempt; costs no tokens."""
        try:
            async with asyncio.timeout(self._timeout):
                raw = await self._client.models.with_raw_response.list()
        except (openai.OpenAIError, TimeoutError) as error:
            raise lmm_error(error, self.url, self._timeout, self._key) from error
        with self._discreet():
            listed = self._require_served(raw.text)
        return Served(listed, context_length(raw.text, self.model))

    def _require_served(self, models: str) -> bool:
        """Whether a list of models names the model; False where it can't be read. Raises `LMMRequestError` where it
        names others only."""
        served = read_models(models)
        if served is not None and self.model not in served:
            raise LMMRequestError(f"{self.url} serves {', '.join(served) or 'no model'}, not {self.model}: set --model")
        return served is not None

    async def _ask_facts(self) -> Mapping[str, str]:
        models = await self._page(f"{self.url}/models")
        if models is not None:
            self._require_served(models)
        version = await self._page(f"{self.url.removesuffix('/v1')}/version")
        return read_facts(models, version, self.model)

    async def _page(self, address: str) -> str | None:
        """A page of the server's; None where it has none, or none for us."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.get(address, cast_to=str)
        except (openai.OpenAIError, TimeoutError) as error:
            if isinstance(error, openai.APIStatusError) and error.status_code not in _BUSY:
                return None
            raise lmm_error(error, self.url, self._timeout, self._key) from error

    async def aclose(self) -> None:
        await self._client.close()

    async def _ask(self, body: dict[str, Any], request: LMMRequest) -> tuple[LMMResponse, str]:
        """One attempt, read within it: an error that came with status 200 may pass as well."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):  # the client's own timeout starts again with each byte
                raw = await self._client.chat.completions.with_raw_response.create(**body)
        except (openai.OpenAIError, TimeoutError) as error:
            raise lmm_error(error, self.url, self._timeout, self._key) from error
        return read_completion(raw.text, request, time.perf_counter() - started), raw.text

    @contextmanager
    def _discreet(self) -> Iterator[None]:
        """No error shows the key, whatever the server quotes."""
        try:
            yield
        except LMMError as error:
            error.args = tuple(without_key(str(word), self._key) for word in error.args)
            raise

    async def _image_part(self, part: ImagePart) -> dict[str, Any]:
        url = await asyncio.to_thread(self._data_url, part.image_id, part.sha256)
        return {"type": "image_url", "image_url": {"url": url}}

    def _encode(self, image_id: str, sha256: str) -> str:
        """An image as a data URL. Raises `ImageError` where its pixels are not those of the hash."""
        image = load_pixels(self._images, ImagePart(image_id=image_id, sha256=sha256))
        if self._max_side is not None and max(image.size) > self._max_side:
            image = image.copy()
            image.thumbnail((self._max_side, self._max_side), PILImage.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)  # a faster, slightly larger file
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def open_server(argument: str, options: LMMOptions) -> OpenAILMM:
    """The back end "openai": `argument` is the server's address. Raises `ConfigError`."""
    return OpenAILMM(
        argument,
        options.model or "",
        options.images,
        api_key=options.api_key,
        revision=options.revision,
        max_side=options.max_side,
        max_concurrency=options.concurrency,
        timeout=options.request_timeout,
        attempts=options.attempts,
    )


def lmm_error(error: Exception, url: str, timeout: float, key: str | None = None) -> FieldscopeError:
    """What a failure of the openai library is in our tree, in one line that says what to do and hides the `key`."""
    match error:
        case openai.APITimeoutError() | TimeoutError():
            return LMMConnectionError(
                f"{url} did not answer within {timeout:g} s: allow more time, or send it fewer requests at once"
            )
        case openai.APIConnectionError():
            advice, can_pass = connection_advice(error.__cause__ or error, url)
            return (LMMConnectionError if can_pass else LMMRequestError)(without_key(advice, key))
        case openai.APIStatusError(status_code=status):
            said = f"{url} answered {status}: {server_words(error.body, key) or one_line(error)}"
            if status in _REFUSED_KEY:
                return LMMRequestError(f"{said}; {_KEY_ADVICE[key is not None]}")
            return status_error(status, said, _retry_after(error), str(error.body))
        case openai.APIError() | openai.LengthFinishReasonError() | openai.ContentFilterFinishReasonError():
            return LMMResponseError(f"{url} gave no usable answer: {one_line(error)}; see the server's log")
        case _:
            return LMMRequestError(
                f"the request to {url} could not be made: {one_line(error)}; check the server's address and its API key"
            )


def _server_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.username or parts.password or parts.query)  # where keys do not belong
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{shown_address(base_url)!r} is not the address of a server; write it like "
            "http://localhost:8000 (a key goes in FIELDSCOPE_API_KEY)"
        )
    return base_url.rstrip("/") if parts.path.strip("/") else parts._replace(path="/v1").geturl()


def _pause_asked(state: RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return _retry_after(error.__cause__) if error else None


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait: `Retry-After` holds seconds or a date (RFC 9110, 10.2.3)."""
    if not isinstance(error, openai.APIStatusError):
        return None
    value = error.response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None

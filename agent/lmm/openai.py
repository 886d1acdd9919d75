"""An LMM behind an OpenAI-compatible server: vLLM first, any other that speaks chat completions."""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from fieldscope.agent.lmm.addresses import Address, Addresses, Place
from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.lmm.chat_request import chat_request
from fieldscope.agent.lmm.completion import one_line, read_completion, read_models
from fieldscope.agent.lmm.failure import status_error
from fieldscope.agent.lmm.identity import server_identity
from fieldscope.agent.lmm.image_encoding import EncodedImages, ImageEncoding, ImageFormat
from fieldscope.agent.lmm.negotiation import Negotiation, Send
from fieldscope.agent.lmm.server_facts import Served, read_facts
from fieldscope.agent.lmm.server_profile import KnownProfile, ServerProfile
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
_OVERLOADED = {408, 429, 503, 504}
_CONNECT_TIMEOUT = 10.0
_NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
_IMAGES_BY_NAME = (0, 12)
"""The first version of vLLM that certainly finds an image by its `uuid` alone. Older ones than 0.11 leave such an image
out, and say so in their log only."""


class OpenAILMM:
    """An LMM over HTTP, for one event loop.

    `base_url` is the server's address, as in `http://localhost:8000` (`/v1` is added where there is no path), or the
    addresses of several servers of the same model, separated by commas; `model` is the name that they serve it under,
    `revision` whatever tells two models of that name apart, since a server doesn't say which weights it holds. The key
    comes from `api_key`, else FIELDSCOPE_API_KEY, else OPENAI_API_KEY; an empty `api_key` is no key.

    Images travel as data URLs, as `max_side`, `max_pixels` and `image_format` say
    (`fieldscope.agent.lmm.image_encoding`). A vLLM that `identify` has found is asked for an image that it has
    by the hash of its pixels (`uuid`), and gets the image again where it has it no more.

    At most `max_concurrency` calls are out at once at each address, a call that waits to be tried again among them,
    and fewer where the server gains nothing from them or asks to slow down (`fieldscope.agent.lmm.adaptive_limit`).
    `fieldscope.agent.lmm.addresses` says which call goes first, and where. `timeout` (seconds) is for one attempt from
    first to last byte. An attempt is repeated, up to `attempts` in all, only where it can pass: no connection, no
    answer in time, or status 408, 409, 425, 429 or 5xx. It waits for as long as the server says in `Retry-After`, plus
    a random time below `backoff` seconds, doubled each time; `sleep` is how it waits.

    A parameter that the server refuses is sent otherwise, or not at all, from then on
    (`fieldscope.agent.lmm.server_profile`); those that are set in `profile` are sent as it says.
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
        max_pixels: int | None = None,
        image_format: ImageFormat = "jpeg",
        max_concurrency: int = 32,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 0.5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        profile: ServerProfile | None = None,
    ) -> None:
        urls = [_server_url(address) for address in base_url.split(",")]
        self.url = urls[0]
        self.model = model
        self.images = EncodedImages(images, ImageEncoding(image_format, max_side, max_pixels))
        self._negotiation = Negotiation(self.url, model, profile)
        self._revision = revision
        self._facts: Mapping[str, str] | None = None
        self._identifying: asyncio.Task[Mapping[str, str]] | None = None
        self._timeout = timeout
        self._addresses = Addresses(urls, max_concurrency)
        variables = () if api_key == "" else ("FIELDSCOPE_API_KEY", "OPENAI_API_KEY")
        self._key = usable_key(api_key, *map(os.environ.get, variables))
        require_usable_environment()
        limits = httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
        self._http = httpx2.AsyncClient(timeout=limits, limits=_NO_LIMITS, follow_redirects=True)
        self._client = openai.AsyncOpenAI(
            base_url=self.url, api_key=self._key or "none", timeout=limits, max_retries=0, http_client=self._http
        )
        self._limits = {"timeout": limits.as_dict()}
        self._headers = {
            name: value
            for name, value in self._client.default_headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")  # which tell of the library
        } | {"Authorization": f"Bearer {self._client.api_key}", "Content-Type": "application/json"}
        self._retrying = AsyncRetrying(
            sleep=sleep,
            retry=retry_if_exception_type(_CAN_PASS),
            stop=lambda state: state.attempt_number >= attempts or (_pause_asked(state) or 0.0) > LONGEST_WAIT,
            wait=lambda state: (_pause_asked(state) or 0.0) + wait_random_exponential(backoff, max=30.0)(state),
            reraise=True,
        )

    @property
    def identity(self) -> str:
        """The model's name and revision, how images are sent, and, once `identify` has asked, what the server tells."""
        sent = self.images.encoding
        return server_identity(self.model, self._revision, sent.max_side, self._facts, sent.max_pixels, sent.format)

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
        async with self._sending(request) as send:
            return await self._negotiation.answer(request, send)

    @property
    def profile(self) -> KnownProfile:
        """What is known of the parameters that the server takes."""
        return self._negotiation.known

    async def stands(self, request: LMMRequest, response: LMMResponse) -> bool:
        """Whether a remembered response still is the best answer to be had: the server took all of the request, or
        refuses the same of it again. Asks once for each way in which requests were adapted; where that fails, the
        response is the only answer to be had."""
        if set(response.adapted) <= set(self.profile.profile.adapted(request)):
            return True
        async with self._sending(request) as send:
            try:
                return await self._negotiation.stands(request, response.adapted, send)
            except LMMError:
                return True

    @asynccontextmanager
    async def _sending(self, request: LMMRequest) -> AsyncIterator[Send[tuple[LMMResponse, str]]]:
        """What sends the request, once it is its turn."""
        first = request.images[0].sha256 if request.images else None
        async with self._addresses.place(first) as place:

            async def send(request: LMMRequest, profile: ServerProfile) -> tuple[LMMResponse, str]:
                retrying = self._retrying.copy()  # an object of tenacity's holds the state of one call
                answered: tuple[LMMResponse, str] = await retrying(self._attempt, request, profile, place)
                response, text = answered
                adapted = profile.adapted(request)
                return response.model_copy(update={"adapted": adapted}) if adapted else response, text

            yield send

    async def check(self) -> Served:
        """What the servers' lists of models say of the model. Raises an `LMMError` where a server does not answer, or
        serves other models. One attempt; costs no tokens."""
        lists = []
        for address in self._addresses.all:
            try:
                async with asyncio.timeout(self._timeout):
                    lists.append(await self._client.get(f"{address.url}/models", cast_to=str))
            except (openai.OpenAIError, TimeoutError) as error:
                raise lmm_error(error, address.url, self._timeout, self._key) from error
        with self._discreet():
            listed = [
                self._require_served(text, each.url) for text, each in zip(lists, self._addresses.all, strict=True)
            ]
        lengths = [length for text in lists if (length := context_length(text, self.model)) is not None]
        return Served(all(listed), min(lengths, default=None))

    def _require_served(self, models: str, url: str) -> bool:
        """Whether a list of models names the model; False where it can't be read. Raises `LMMRequestError` where it
        names others only."""
        served = read_models(models)
        if served is not None and self.model not in served:
            raise LMMRequestError(f"{url} serves {', '.join(served) or 'no model'}, not {self.model}: set --model")
        return served is not None

    async def _ask_facts(self) -> Mapping[str, str]:
        """What all addresses tell of the model. Raises `LMMRequestError` where they do not tell the same."""
        facts = [await self._facts_at(address) for address in self._addresses.all]
        for address, others in zip(self._addresses.all[1:], facts[1:], strict=True):
            if others != facts[0]:
                differing = sorted(name for name in {*facts[0], *others} if facts[0].get(name) != others.get(name))
                raise LMMRequestError(
                    f"{self.url} and {address.url} serve different models or versions as {self.model} "
                    f"({', '.join(differing)}): name servers of the same model in --lmm"
                )
        return facts[0]

    async def _facts_at(self, address: Address) -> Mapping[str, str]:
        models = await self._page(f"{address.url}/models")
        if models is not None:
            self._require_served(models, address.url)
        facts = read_facts(models, await self._page(f"{address.url.removesuffix('/v1')}/version"), self.model)
        if _finds_images_by_name(facts) and address.held is None:
            address.held = set()
        return facts

    async def _page(self, page: str) -> str | None:
        """A page of a server's; None where it has none, or none for us."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.get(page, cast_to=str)
        except (openai.OpenAIError, TimeoutError) as error:
            if isinstance(error, openai.APIStatusError) and error.status_code not in _BUSY:
                return None
            raise lmm_error(error, page.rpartition("/")[0], self._timeout, self._key) from error

    async def aclose(self) -> None:
        await self._client.close()

    async def _attempt(self, request: LMMRequest, profile: ServerProfile, place: Place) -> tuple[LMMResponse, str]:
        """One attempt, read within it: an error that came with status 200 may pass as well."""
        place.send()
        address = place.address
        by_name = {self.images.name(image) for image in request.images} & (address.held or set())
        try:
            try:
                answered = await self._ask(request, profile, address, by_name)
                address.hits += bool(by_name)
            except (LMMRequestError, LMMServerError):
                if not by_name:
                    raise
                address.miss(by_name)
                answered = await self._ask(request, profile, address)
        except (LMMConnectionError, LMMRateLimitError, LMMServerError) as error:
            if is_overload(error):
                place.overloaded()
            place.move()
            raise
        place.answered()
        if address.held is not None:
            address.held.update(self.images.name(image) for image in request.images)
        return answered

    async def _ask(
        self, request: LMMRequest, profile: ServerProfile, address: Address, by_name: Collection[str] = ()
    ) -> tuple[LMMResponse, str]:
        """Send a request, with the images that are not known `by_name`, and read the answer."""

        async def write_image(image: ImagePart) -> dict[str, Any]:
            name = self.images.name(image)
            url = None if name in by_name else orjson.Fragment(await self.images.part(image))
            part = {"type": "image_url", "image_url": url}
            return part if address.held is None else part | {"uuid": name}

        body = await chat_request(request, self.model, write_image, profile)
        body |= body.pop("extra_body", {})
        started = time.perf_counter()
        try:
            content = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
            async with asyncio.timeout(self._timeout):  # the client's own timeout starts again with each byte
                text = await self._post(f"{address.url}/chat/completions", content)
        except (openai.OpenAIError, TimeoutError, orjson.JSONEncodeError) as error:
            raise lmm_error(error, address.url, self._timeout, self._key) from error
        return read_completion(text, profile.fit_request(request), time.perf_counter() - started), text

    async def _post(self, url: str, content: bytes) -> str:
        """The body of the answer. Raises the openai library's errors; the library itself would read and write the JSON
        once more on the way, which takes longer than all the rest of a call."""
        try:
            request = httpx2.Request("POST", url, headers=self._headers, content=content, extensions=self._limits)
            response = await self._http.send(request)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(error.request) from error
        except httpx2.RequestError as error:
            raise openai.APIConnectionError(request=error.request) from error
        if response.is_success:
            return response.text
        try:
            body = response.json()
        except ValueError:
            body = response.text
        said = body.get("error", body) if isinstance(body, dict) else body
        raise openai.APIStatusError(f"Error code: {response.status_code}", response=response, body=said)

    @contextmanager
    def _discreet(self) -> Iterator[None]:
        """No error shows the key, whatever the server quotes."""
        try:
            yield
        except LMMError as error:
            error.args = tuple(without_key(str(word), self._key) for word in error.args)
            raise


def open_server(argument: str, options: LMMOptions) -> OpenAILMM:
    """The back end "openai": `argument` is the server's address. Raises `ConfigError`."""
    return OpenAILMM(
        argument,
        options.model or "",
        options.images,
        api_key=options.api_key,
        revision=options.revision,
        max_side=options.max_side,
        max_pixels=options.max_pixels,
        image_format=options.image_format,
        max_concurrency=options.concurrency,
        timeout=options.request_timeout,
        attempts=options.attempts,
        profile=options.profile,
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
            words, body = server_words(error.body, key) or one_line(error), str(error.body)
            said = f"{url} answered {status}: {words}"
            if status in _REFUSED_KEY:
                return LMMRequestError(f"{said}; {_KEY_ADVICE[key is not None]}", words, body)
            return status_error(status, said, _retry_after(error), body, words)
        case openai.APIError() | openai.LengthFinishReasonError() | openai.ContentFilterFinishReasonError():
            return LMMResponseError(f"{url} gave no usable answer: {one_line(error)}; see the server's log")
        case _:
            return LMMRequestError(
                f"the request to {url} could not be made: {one_line(error)}; check the server's address and its API key"
            )


def is_overload(error: LMMError) -> bool:
    """Whether a server has more calls than it can answer: it says so, or lets them time out."""
    cause = error.__cause__
    timed_out = isinstance(cause, openai.APITimeoutError | TimeoutError)
    return timed_out or isinstance(error, LMMRateLimitError) or getattr(cause, "status_code", None) in _OVERLOADED


def _finds_images_by_name(facts: Mapping[str, str]) -> bool:
    version = re.match(r"(\d+)\.(\d+)", facts.get("version", "")) if facts.get("owned_by") == "vllm" else None
    return version is not None and (int(version[1]), int(version[2])) >= _IMAGES_BY_NAME


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

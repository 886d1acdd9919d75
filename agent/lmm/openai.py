"""An LMM behind an OpenAI-compatible server: vLLM first, any other that speaks chat completions."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
from tenacity import AsyncRetrying

from fieldscope.agent.lmm.addresses import Address, Addresses, Place
from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import ImagePart, LMMRequest, LMMResponse
from fieldscope.agent.lmm.chat_request import chat_request
from fieldscope.agent.lmm.completion import read_completion, read_models
from fieldscope.agent.lmm.connection import Connection, is_overload
from fieldscope.agent.lmm.identity import server_identity
from fieldscope.agent.lmm.image_encoding import EncodedImages
from fieldscope.agent.lmm.negotiation import Negotiation, Send
from fieldscope.agent.lmm.server_profile import KnownProfile, ServerProfile
from fieldscope.core.errors import (
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMServerError,
)
from fieldscope.core.image_encoding import ImageEncoding, ImageFormat
from fieldscope.core.retrying import retry_policy
from fieldscope.core.server_address import read_address
from fieldscope.core.server_facts import Served, finds_images_by_name, read_facts
from fieldscope.core.server_words import context_length, usable_key, without_key
from fieldscope.core.types import ImageSource


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
    and fewer where the server gains nothing from them or asks to slow down (`fieldscope.core.adaptive_limit`).
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
        self._addresses = Addresses(urls, max_concurrency)
        variables = () if api_key == "" else ("FIELDSCOPE_API_KEY", "OPENAI_API_KEY")
        self._key = usable_key(api_key, *map(os.environ.get, variables))
        self._connection = Connection(self.url, self._key, timeout)
        self._retrying = AsyncRetrying(sleep=sleep, **retry_policy(attempts, backoff))

    @property
    def identity(self) -> str:
        """The model's name and revision, how images are sent, and, once `identify` has asked, what the server tells."""
        sent = self.images.encoding
        return server_identity(self.model, self._revision, sent.max_side, self._facts, sent.max_pixels, sent.format)

    async def identify(self) -> Mapping[str, str]:
        """What the server tells of the model (`fieldscope.core.server_facts`), asked for once; costs no tokens.

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
            lists.append(await self._connection.get(address.url, "/models"))
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
        models = await self._connection.page(address.url, "/models")
        if models is not None:
            self._require_served(models, address.url)
        version = await self._connection.page(address.url.removesuffix("/v1"), "/version")
        facts = read_facts(models, version, self.model)
        if finds_images_by_name(facts) and address.held is None:
            address.held = set()
        return facts

    async def aclose(self) -> None:
        await self._connection.aclose()

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
        text = await self._connection.post(address.url, "/chat/completions", body)
        return read_completion(text, profile.fit_request(request), time.perf_counter() - started), text

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


def _server_url(base_url: str) -> str:
    parts = read_address(base_url)
    return base_url.rstrip("/") if parts.path.strip("/") else parts._replace(path="/v1").geturl()

"""A server of an embedding or a scoring model: requests over HTTP, repeated where that can help, and what the server
tells of its model."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import httpx2
import orjson
from pydantic_core import from_json
from tenacity import Retrying, retry_if_exception

from fieldscope.core.adaptive_limit import AdaptiveLimit
from fieldscope.core.errors import (
    ConfigError,
    LMMConnectionError,
    LMMError,
    LMMRateLimitError,
    LMMRequestError,
    LMMResponseError,
    LMMServerError,
    one_line,
)
from fieldscope.core.private import shown_address
from fieldscope.core.retrying import retry_policy
from fieldscope.core.server_address import read_address
from fieldscope.core.server_facts import listed_models, read_facts
from fieldscope.core.server_failure import (
    BUSY,
    KEY_REFUSED,
    OVERLOADED,
    failure_in,
    key_advice,
    read_retry_after,
    status_error,
)
from fieldscope.core.server_words import (
    connection_advice,
    require_usable_environment,
    server_words,
    usable_key,
    without_key,
)

ENDPOINTS = ("rerank", "score", "embeddings")
"""What the path of an address may end with; any other path is one that endpoints lie below."""

_CONNECT_TIMEOUT = 10.0
_VERSIONS = ("v1", "v2")
_NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def split_model(text: str, option: str) -> tuple[str, str]:
    """`URL#MODEL`, as a user wrote it in an option, as the two. Raises `ConfigError`."""
    url, _, model = text.partition("#")
    read_address(url)
    if not model:
        raise ConfigError(
            f"{option} {shown_address(url)} does not name a model; write URL#MODEL, with the name under which the "
            "server serves the model"
        )
    return url, model


class ModelServer:
    """One model behind one server, for any number of threads.

    `url` is the address, as in `http://localhost:8000`; a path stays as it is. `option` is where the user wrote it, for
    messages. The key comes from `api_key`, else FIELDSCOPE_API_KEY, else OPENAI_API_KEY; an empty `api_key` is no key.
    `key_variable` is the variable that messages name.

    At most `concurrency` requests are out at once, one that waits to be tried again among them, and fewer where the
    server gains nothing from them or asks to slow down (`fieldscope.core.adaptive_limit`). `timeout` (seconds) is how
    long one attempt may wait for the server. An attempt is repeated, up to `attempts` in all, only where it can pass:
    no connection, no answer in time, or status 408, 409, 425, 429 or 5xx. It waits for as long as the server says in
    `Retry-After`, plus a random time below `backoff` seconds, doubled each time; `sleep` is how it waits.

    Methods raise the `LMMError` that fits, whose text does not show the key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        option: str,
        *,
        api_key: str | None = None,
        key_variable: str = "FIELDSCOPE_API_KEY",
        concurrency: int = 32,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        require_usable_environment()
        self._path = read_address(url).path.strip("/")
        self.url = url.rstrip("/")
        self.model = model
        self._option = option
        self._key_variable = key_variable
        variables = () if api_key == "" else ("FIELDSCOPE_API_KEY", "OPENAI_API_KEY")
        self._key = usable_key(api_key, *map(os.environ.get, variables))
        self._timeout = timeout
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            limits=_NO_LIMITS,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            follow_redirects=True,
        )
        self._places = _Places(concurrency)
        self._workers = ThreadPoolExecutor(concurrency, thread_name_prefix="model-server")
        self._facts_lock = threading.Lock()
        self._closed = threading.Event()
        self._retrying = Retrying(sleep=sleep, **retry_policy(attempts, backoff, self._closed.is_set))
        self._trying = self._retrying.copy(retry=retry_if_exception(_is_away))

    @property
    def endpoint(self) -> str | None:
        """The endpoint that the address itself names, such as `rerank` for `http://host/v1/rerank`; None where it names
        none."""
        last = self._path.rpartition("/")[2]
        return last if last in ENDPOINTS else None

    @property
    def has_path(self) -> bool:
        """Whether the address has a path, so that endpoints lie below it and nowhere else."""
        return bool(self._path)

    def post(self, path: str, body: Mapping[str, Any], trial: bool = False) -> Any:
        """The JSON in the answer to a JSON body, sent to the address with `path` added (which may be empty). A `trial`
        finds out whether the server takes the body: that it fails at it (status 500) is an answer, too."""
        content = orjson.dumps(body)
        retrying = self._trying if trial else self._retrying
        with self._places.take():
            return self._retry(lambda: self._send("POST", self.url + path, content), retrying)

    def each(self, ask: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """What `ask`, which may call `post`, returns for each of the items, in order; many are asked at once. Raises
        the first error that it raises; what waits by then is not asked."""
        if len(items) < 2:
            return [ask(item) for item in items]
        return list(self._workers.map(ask, items))

    def facts(self) -> Mapping[str, str]:
        """What the server tells of the model (`fieldscope.core.server_facts`), asked for once; costs no tokens. Empty
        where it tells nothing.

        Raises `LMMRequestError` where it serves other models only.
        """
        with self._facts_lock:
            return self._facts

    def close(self) -> None:
        """Close the connections. Requests that are out fail, and are not repeated."""
        self._closed.set()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    @cached_property
    def _facts(self) -> Mapping[str, str]:
        root = self._root
        models = self._page(f"{root}/v1/models") or (self._page(f"{root}/models") if self._path else None)
        served = listed_models(models)
        if served is not None and self.model not in served:
            names = ", ".join(served) or "no model"
            raise LMMRequestError(
                f"{self.url} serves {names}, not {self.model}: write the model's name after # in {self._option}"
            )
        return read_facts(models, self._page(f"{root}/version"), self.model)

    @property
    def _root(self) -> str:
        """The address without endpoint and version."""
        root = self.url
        if self.endpoint:
            root = root.rpartition("/")[0]
        before, _, last = root.rpartition("/")
        return before if last in _VERSIONS else root

    def _page(self, url: str) -> str | None:
        """A page of the server; None where it has none, or none for us."""
        try:
            return self._retry(lambda: self._request("GET", url).text)
        except LMMError as error:
            cause = error.__cause__
            if isinstance(cause, httpx2.HTTPStatusError) and cause.response.status_code not in BUSY:
                return None
            raise

    def _retry(self, attempt: Callable[[], Answer], retrying: Retrying | None = None) -> Answer:
        return (retrying or self._retrying).copy()(attempt)  # an object of tenacity's holds the state of one call

    def _send(self, method: str, url: str, content: bytes) -> Any:
        """One attempt, read within it: an error that came with status 200 may pass as well."""
        sent_at = time.monotonic()
        try:
            text = self._request(method, url, content).text
        except LMMError as error:
            if _is_overload(error):
                self._places.overloaded(sent_at)
            raise
        try:
            document = from_json(text)  # NaN, which is no JSON, is for the caller to refuse
        except ValueError as error:
            raise LMMResponseError(
                f"{url} gave no JSON ({one_line(text, 80)}): check that {self._option} names a server of such models"
            ) from error
        if (failure := failure_in(document)) is not None:
            failure.args = tuple(without_key(str(word), self._key) for word in failure.args)
            raise failure
        self._places.answered()
        return document

    def _request(self, method: str, url: str, content: bytes | None = None) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._http.request(method, url, content=content, headers=headers)
        except httpx2.TimeoutException as error:
            raise LMMConnectionError(
                f"{url} did not answer within {self._timeout:g} s: allow more time, or send it fewer requests at once"
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            advice, can_pass = connection_advice(error, url, self._option, "start the server")
            raise (LMMConnectionError if can_pass else LMMRequestError)(without_key(advice, self._key)) from error
        try:
            response.raise_for_status()
        except httpx2.HTTPStatusError as error:
            raise self._refusal(url, error.response) from error
        return response

    def _refusal(self, url: str, response: httpx2.Response) -> LMMError:
        try:
            body = response.json()
        except ValueError:
            body = response.text
        status, words = response.status_code, server_words(body, self._key) or response.reason_phrase
        said = f"{url} answered {status}: {words}"
        if status in KEY_REFUSED:
            return LMMRequestError(f"{said}; {key_advice(self._key, self._key_variable)}", words, str(body))
        pause = read_retry_after(response.headers.get("retry-after", ""))
        return status_error(status, said, pause, str(body), words)


def status_of(error: LMMError) -> int | None:
    """The HTTP status that an error of a `ModelServer` came with; None where it came with none, or with 200."""
    cause = error.__cause__
    return cause.response.status_code if isinstance(cause, httpx2.HTTPStatusError) else None


class _Places:
    """Places for the requests of threads, as many as the server gains from."""

    def __init__(self, most: int) -> None:
        self._limit = AdaptiveLimit(most)
        self._changed = threading.Condition()
        self._taken = self._waiting = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._taken < self._limit.current)
            self._waiting -= 1
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        with self._changed:
            self._limit.answered(self._waiting > 0)

    def overloaded(self, sent_at: float) -> None:
        with self._changed:
            self._limit.overloaded(sent_at)


def _is_away(error: BaseException) -> bool:
    """Whether a server says nothing of a request yet: it is not there, or too busy."""
    if isinstance(error, LMMConnectionError | LMMRateLimitError):
        return True
    return isinstance(error, LMMServerError) and status_of(error) in BUSY


def _is_overload(error: LMMError) -> bool:
    timed_out = isinstance(error.__cause__, httpx2.TimeoutException)
    return timed_out or isinstance(error, LMMRateLimitError) or status_of(error) in OVERLOADED

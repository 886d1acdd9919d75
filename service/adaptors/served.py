"""Ranking for an adaptor by a running `fieldscope serve`."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2

from fieldscope.agent.fusion import sigmoid
from fieldscope.core.errors import BrokenImageError, ConfigError, LMMConnectionError, LMMServerError, one_line
from fieldscope.core.server_address import read_address
from fieldscope.core.server_words import require_usable_environment, usable_key
from fieldscope.service.adaptors.documents import FoundImage, GivenDocument, RankedDocument
from fieldscope.service.server.api.relevance import falling
from fieldscope.service.workflows.caller_warnings import warn_caller

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget

KEY = "FIELDSCOPE_SERVICE_KEY"
"""The variable with an API key of the service, as `fieldscope keys add` made it."""

_CONNECT_SECONDS = 10.0


class Service:
    """A running `fieldscope serve` at `url`, as in `http://localhost:8080`: a `Ranker`, and a client of other calls.

    `strategy` is one of its strategies (None: its default), `budget` what a call may spend, `explain` how many of the
    best images get a reason in the LMM's words, each of which is a call to the LMM. A reply may take `timeout` seconds.
    A key of the service comes from FIELDSCOPE_SERVICE_KEY.

    Methods raise `ConfigError` where the service refuses a request, `LMMServerError` where it fails, and
    `LMMConnectionError` where it can't be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        strategy: str | None = None,
        budget: Budget | None = None,
        explain: int = 10,
        timeout: float = 600.0,
    ) -> None:
        require_usable_environment()
        read_address(url)
        self.url = url.rstrip("/")
        key = usable_key(os.environ.get(KEY))
        limits = {} if budget is None else {k: v for k, v in asdict(budget).items() if v is not None}
        self._options = {"strategy": strategy, "budget": limits or None, "explain": explain}
        self._http = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def rerank(self, query: str, documents: Sequence[GivenDocument], top_n: int | None) -> list[RankedDocument]:
        """As `Ranker.rerank`; texts are judged as well. Addresses are fetched by the service where it allows the
        host."""
        if not documents:
            return []
        body = {"query": query, "documents": [_document(document) for document in documents], "top_n": top_n}
        reply = self.post("/v1/rerank", body | {"return_documents": False})
        warn_caller(reply["meta"].get("warnings", ()))
        return [_place(result["index"], result, result["relevance_score"]) for result in reply["results"]]

    def search(self, query: str, source: str | None, top_n: int) -> list[FoundImage]:
        """As `Ranker.search`; `source` is a collection's name (None: the only one)."""
        reply = self.post("/v1/search", {"query": query, "collection": source, "top_n": top_n})
        warn_caller([*(reply["nothing"] or {}).get("sentences", ()), *reply["flags"]])
        results = reply["results"]
        claims = any(result["p_match"] is not None for result in results)
        scores = falling([result["p_match"] if claims else sigmoid(result["score"]) for result in results])
        return [
            FoundImage(_place(n, result, score), result["url"], self.thumbnail(reply["collection"], result["image"]))
            for n, (result, score) in enumerate(zip(results, scores, strict=True))
        ]

    def thumbnail(self, collection: str, image_id: str) -> bytes:
        """A small picture of a collection's image, as WebP."""
        address = f"/v1/collections/{quote(collection)}/thumbnails/{quote(image_id)}"
        return self._request("GET", address).content

    def get(self, path: str) -> Any:
        """What is at an address below the service's."""
        return self._request("GET", path).json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The reply to a call with the options of this client, which those of `body` replace."""
        given = {**self._options, **body}
        return self._request("POST", path, {k: v for k, v in given.items() if v is not None}).json()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        try:
            reply = self._http.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise LMMConnectionError(
                f"no reply from the service at {self.url} ({one_line(error)}); start it with `fieldscope serve`, or "
                "correct the address"
            ) from error
        if reply.is_success:
            return reply
        said = f"the service at {self.url} replied {reply.status_code}: {_message(reply)}"
        if reply.status_code in (401, 403):
            raise ConfigError(f"{said}. Put one of its keys into {KEY}")
        if reply.status_code == 429 or reply.status_code >= 500:
            raise LMMServerError(f"{said}. Try again later, or see what the service printed")
        raise ConfigError(f"{said}. Correct the request")


def _message(reply: httpx2.Response) -> str:
    try:
        return one_line(reply.json()["message"])
    except (ValueError, LookupError, TypeError):
        return one_line(reply.text or reply.reason_phrase)


def _document(document: GivenDocument) -> dict[str, str]:
    """A document of a request: files go as they are, encoded."""
    picture = document.picture
    if picture is None:
        return {"text": document.text}
    if isinstance(picture, str):
        return {"image": picture}
    data = _read(picture) if isinstance(picture, Path) else picture
    return {"image": base64.b64encode(data).decode("ascii")}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"can't read {path} ({error.strerror}); correct the path") from error


def _place(index: int, result: Mapping[str, Any], score: float) -> RankedDocument:
    return RankedDocument(index, score, result["judged"], result.get("p_match"), result.get("reason"))

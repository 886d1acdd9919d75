"""Servers of rerankers on loopback, each of which takes what the server that it stands for takes, and refuses the
rest in that server's words."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from fieldscope.core.fingerprint import fingerprint_pixels

MODEL = "tiny-reranker"

Reply = tuple[int, dict[str, str], Any]
Read = Callable[[Any], str]
"""A query or document as a server reads it: a text, or `image:` and the SHA-256 of the pixels. Raises ValueError for
what the server does not take."""


def picture(url: str) -> str:
    """What a server sees in a data URL, or in base64 alone."""
    head, comma, data = url.rpartition(",")
    assert not comma or head.startswith("data:image/")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")
    return f"image:{fingerprint_pixels(image)}"


def read_parts(given: Any) -> str:
    """vLLM's content parts, joined."""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict) or "content" not in given:
        raise ValueError("Input should be a valid string or an object with content")
    return " + ".join(
        part["text"] if part["type"] == "text" else picture(part["image_url"]["url"]) for part in given["content"]
    )


def read_jina(given: Any) -> str:
    """Jina's objects."""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict) or set(given) not in ({"text"}, {"image"}):
        raise ValueError("Input should be TextDoc or ImageDoc")
    return picture(given["image"]) if "image" in given else str(given["text"])


def read_jina_base64(given: Any) -> str:
    if isinstance(given, dict) and str(given.get("image", "")).startswith("data:"):
        raise ValueError("image should be a URL or base64")
    return read_jina(given)


def read_text(given: Any) -> str:
    """Strings only, as Cohere and text rerankers have it."""
    if not isinstance(given, str):
        raise ValueError("Input should be a valid string")
    return given


def read_anything_as_text(given: Any) -> str:
    """The fault that nobody sees: whatever comes is spelled out."""
    return given if isinstance(given, str) else json.dumps(given)


@dataclass
class Reranker:
    """A server. `paths` are its endpoints, `read` how it reads a query or document, `score` its model, `tokens` what it
    counts for what it has read (None: it does not say). `reply`, where set, is asked first and answers or passes."""

    paths: tuple[str, ...] = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
    read: Read = read_parts
    score: Callable[[str, str], Any] = lambda query, document: (sum(map(ord, document)) % 1009) / 1009
    tokens: Callable[[str], int] | None = lambda read: 64 if read.startswith("image:") else (len(read) + 3) // 4
    whole_list: bool = False
    pages: dict[str, Any] = field(default_factory=dict)
    reply: Callable[[int, str, Any], Reply | None] = lambda number, path, body: None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        entry = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": "/models/tiny"}
        self.pages = {"/v1/models": {"object": "list", "data": [entry]}, "/version": {"version": "0.32.0"}} | self.pages
        self.lock = threading.Lock()

    def answer(self, path: str, body: Any) -> Reply:
        with self.lock:
            number = len(self.asked)
            self.asked.append((path, body))
        if (chosen := self.reply(number, path, body)) is not None:
            return chosen
        if path not in self.paths:
            return 404, {}, {"detail": "Not Found"}
        scores = path.endswith("score")
        try:
            query = self.read(body["text_1" if scores else "query"])
            given = body["text_2" if scores else "documents"]
            if self.whole_list and isinstance(given, dict):
                given = [{"content": [part]} for part in given["content"]]
            elif self.whole_list and not all(isinstance(document, str) for document in given):
                raise ValueError("Input should be a valid string")
            documents = [self.read(document) for document in (given if isinstance(given, list) else [given])]
        except (ValueError, KeyError, TypeError) as error:
            return 422, {}, {"detail": [{"loc": ["body", "documents"], "msg": str(error), "type": "value_error"}]}
        values = [self.score(query, document) for document in documents]
        usage = {}
        if self.tokens is not None:
            count = sum(self.tokens(query) + self.tokens(document) for document in documents)
            count += len(documents) * self.tokens(body.get("instruction") or "")
            usage = {"usage": {"prompt_tokens": count, "total_tokens": count}}
        if scores:
            return 200, {}, {"data": [{"index": n, "score": value} for n, value in enumerate(values)], **usage}
        order = sorted(range(len(values)), key=lambda n: -values[n])
        return 200, {}, {"results": [{"index": n, "relevance_score": values[n]} for n in order], **usage}

    @contextmanager
    def serving(self) -> Iterator[Reranker]:
        reranker = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with reranker.lock:
                    reranker.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send(*reranker.answer(self.path, body))

            def do_GET(self) -> None:
                page = reranker.pages.get(self.path)
                self.send(404 if page is None else 200, {}, page)

            def send(self, status: int, headers: dict[str, str], body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client may have gone."""

        http = Quiet(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        self.url = f"http://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield self
        finally:
            http.shutdown()
            http.server_close()

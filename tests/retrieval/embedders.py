"""A server of embeddings on loopback that takes what vLLM takes, and less where a test says so."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np
from PIL import Image

MODEL = "tiny-embedder"
COLOURS = ("red", "green", "blue")
DIM = 8

Reply = tuple[int, dict[str, str], Any]


class Refused(ValueError):
    """The server does not take a request; it answers 400."""


def of_words(text: str) -> np.ndarray:
    """Which colours a text names, and a little of everything else in it."""
    named = [float(text.lower().count(colour)) for colour in COLOURS]
    noise = np.frombuffer(sha256(text.encode()).digest()[: DIM - 3], dtype=np.uint8) / 255 - 0.5
    return np.concatenate([named, 0.2 * noise])


def of_pixels(image: Image.Image) -> np.ndarray:
    """An image's mean colour, and a little of its pixels."""
    mean = np.asarray(image, dtype=np.float64).mean(axis=(0, 1)) / 255
    return np.concatenate([mean, 0.2 * of_words(sha256(image.tobytes()).hexdigest())[3:]])


def opened(url: str) -> Image.Image:
    """The image in a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))).convert("RGB")


@dataclass
class Embedder:
    """`messages`: it takes conversations; `base64`: it writes vectors so, where it is asked to; `pictures`: whether it
    looks at pictures, reads the letters of their data URLs, ignores or refuses them; `together`: it takes a picture
    beside words; `system`: what it does with an instruction. `reply`, where set, is asked first, and answers or passes.
    """

    messages: bool = True
    base64: bool = True
    pictures: Literal["seen", "letters", "ignored", "refused"] = "seen"
    together: bool = True
    system: Literal["read", "ignored", "refused"] = "read"
    pages: dict[str, Any] = field(default_factory=dict)
    reply: Callable[[int, dict[str, Any]], Reply | None] = lambda number, body: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        entry = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": "/models/tiny"}
        self.pages = {"/v1/models": {"object": "list", "data": [entry]}, "/version": {"version": "0.32.0"}} | self.pages
        self.lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            number = len(self.asked)
            self.asked.append(body)
            self.paths.append(path)
        if (chosen := self.reply(number, body)) is not None:
            return chosen
        if path != "/v1/embeddings":
            return 404, {}, {"detail": "Not Found"}
        try:
            vector, tokens = self.embed(body)
        except Refused as error:
            return 400, {}, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}}
        return answered(vector, encoding=body["encoding_format"] if self.base64 else "float", tokens=tokens)

    def embed(self, body: dict[str, Any]) -> tuple[np.ndarray, int]:
        if not self.base64 and body.get("encoding_format") == "base64":
            raise Refused("encoding_format must be float")
        if "input" in body:
            return of_words(body["input"]), len(body["input"]) // 4
        if not self.messages:
            raise Refused("input is required")
        vector, tokens = np.zeros(DIM), 0
        for message in body["messages"]:
            parts = message["content"]
            if message["role"] == "system":
                if self.system == "refused":
                    raise Refused("Embedding models should only embed one message at a time")
                parts = [] if self.system == "ignored" else parts
            elif len(parts) > 1 and not self.together:
                raise Refused("CLIP accepts text-only or image-only inputs, not both!")
            for part in parts:
                if part["type"] == "text":
                    vector += of_words(part["text"]) * (2 if message["role"] == "system" else 1)
                    tokens += len(part["text"]) // 4
                else:
                    seen, counted = self.look(part["image_url"]["url"])
                    vector += seen
                    tokens += counted
        return vector if vector.any() else np.ones(DIM), tokens

    def look(self, url: str) -> tuple[np.ndarray, int]:
        if self.pictures == "refused":
            raise Refused("At most 0 image(s) may be provided in one prompt.")
        if self.pictures == "letters":
            return of_words(url), len(url) // 4
        if self.pictures == "ignored":
            return np.zeros(DIM), 1
        return of_pixels(opened(url)), 16

    @contextmanager
    def serving(self) -> Iterator[Embedder]:
        embedder = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with embedder.lock:
                    embedder.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send(*embedder.answer(self.path, body))

            def do_GET(self) -> None:
                page = embedder.pages.get(self.path)
                self.send(404 if page is None else 200, {}, page)

            def send(self, status: int, headers: dict[str, str], body: Any) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def answered(*vectors: np.ndarray, encoding: str = "base64", tokens: int = 4, indexes: Any = None) -> Reply:
    """vLLM's answer with these vectors."""
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector, encoding)}
        for index, vector in zip(indexes or range(len(vectors)), vectors, strict=True)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return 200, {}, {"id": "embd-1", "object": "list", "model": MODEL, "data": data, "usage": usage}


def written(vector: np.ndarray, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()

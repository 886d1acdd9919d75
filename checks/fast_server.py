"""A server in a process of its own that answers every chat completion at once, and counts what it was sent.

    python -m checks.fast_server PORT [--vllm]

`/statistics` tells calls and bytes since it was last read, `/bodies` the bodies since it was last read. With `--vllm`
it says that it is a vLLM, and finds images by their `uuid`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httptools

MODEL = "vl"
QUESTIONS = 6
_ANSWERS = {
    "core": {
        "thought": "a thought",
        "core": "a bird",
        "detailed": "a bird on snow",
        "comprehensive": "a bird on snow at night",
        "instructions": [{"text": f"show fact {n}", "words": "bird", "type": "addition"} for n in range(QUESTIONS)],
    },
    "predicates": {
        "predicates": [
            {"question": f"is fact {n} to be seen in the image?", "expected": "yes", "words": "bird", "type": "other"}
            for n in range(QUESTIONS)
        ]
    },
}
_TOKENS = ["yes", "no", "Yes", "No", *(f"t{n}" for n in range(16))]
_TOP = [{"token": t, "logprob": -0.2 - 2.0 * n, "bytes": list(t.encode())} for n, t in enumerate(_TOKENS)]


def _completion(text: str, logprobs: dict[str, Any] | None = None) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": logprobs,
    }
    usage = {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}
    body = {"id": "chatcmpl", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return json.dumps(body | {"usage": usage}).encode()


_YES = _completion("yes", {"content": [_TOP[0] | {"top_logprobs": _TOP}]})
_STRUCTURED = {name: _completion(json.dumps(answer)) for name, answer in _ANSWERS.items()}


class _Received:
    """What arrived on all connections, and the pages that the server has."""

    def __init__(self, as_vllm: bool) -> None:
        listed = {"id": MODEL, "object": "model", "root": "models/vl", "owned_by": "vllm" if as_vllm else "fast"}
        self._pages = {b"/v1/models": json.dumps({"object": "list", "data": [listed]}).encode()}
        if as_vllm:
            self._pages[b"/version"] = b'{"version": "0.32.0"}'
        self._calls = self._bytes = 0
        self._bodies: list[bytes] = []

    def answer(self, path: bytes, body: bytes) -> bytes:
        """The page, or the answer to a call; empty where there is none."""
        if path.endswith(b"/chat/completions"):
            self._calls += 1
            self._bytes += len(body)
            self._bodies.append(body)
            structured = b'"response_format"' in body
            return _STRUCTURED["core" if b'"comprehensive"' in body else "predicates"] if structured else _YES
        if path == b"/statistics":
            counted = json.dumps({"calls": self._calls, "bytes": self._bytes}).encode()
            self._calls = self._bytes = 0
            return counted
        if path == b"/bodies":
            bodies, self._bodies = self._bodies, []
            return b"[" + b",".join(bodies) + b"]"
        return self._pages.get(path, b"")


class _Connection(asyncio.Protocol):
    def __init__(self, received: _Received) -> None:
        self._received = received
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, bytearray()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer = self._received.answer(self._path, bytes(self._body))
        status = b"200 OK" if answer else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(answer))
        self._transport.write(head + answer)  # type: ignore[attr-defined]  # a socket's transport can write


async def serve(port: int, as_vllm: bool) -> None:
    """Answer until the process is ended."""
    received = _Received(as_vllm)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(received), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # the one line that a starter reads
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), "--vllm" in sys.argv))

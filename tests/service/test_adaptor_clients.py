"""What the adaptors share: pictures in every spelling, and the client of a running service."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from fieldscope.agent.budget import Budget
from fieldscope.core.errors import BrokenImageError, ConfigError, FieldscopeWarning, LMMConnectionError, LMMServerError
from fieldscope.service.adaptors.documents import GivenDocument, given_document, read_picture
from fieldscope.service.adaptors.served import KEY, Service


def png() -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", (8, 6), "#d01010").save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()
ENCODED = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("given", "picture"),
    [
        ("photos/a b.jpg", Path("photos/a b.jpg")),
        ("/data/heron", Path("/data/heron")),
        (Path("a.png"), Path("a.png")),
        (PNG, PNG),
        (ENCODED, PNG),
        (f"data:image/png;base64,{ENCODED}", PNG),
        ("fieldscope://photos/12.jpg", "fieldscope://photos/12.jpg"),
        ("https://example.org/a.png", "https://example.org/a.png"),
    ],
)
def test_a_picture_in_every_spelling(given: object, picture: object) -> None:
    assert read_picture(given) == picture


def test_a_text_is_a_picture_only_where_it_spells_one() -> None:
    assert given_document(None, "a crab on a beach") == GivenDocument(None, "a crab on a beach")
    assert given_document(None, ENCODED).picture == PNG
    assert given_document(None, "a.jpg").picture == Path("a.jpg")
    torn = given_document("data:image/png;base64,????", "a caption")
    assert torn.picture is None and "base64" in torn.fault
    with pytest.raises(TypeError, match="int"):
        given_document(3, "")


class Server(ThreadingHTTPServer):
    """Replies with `status` and `body`, and remembers what it was sent."""

    status = 200
    body: Any = None
    sent: Any = None
    key: str | None = None


class Replies(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.key = self.headers["Authorization"]
        data = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Replies) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def service(server: Server, **options: Any) -> Service:
    return Service(f"http://127.0.0.1:{server.server_port}", **options)


def test_a_call_has_its_options_and_the_key(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, " fs_secret ")
    (tmp_path / "a.png").write_bytes(PNG)
    result = {"index": 1, "relevance_score": 0.5, "judged": "picture", "p_match": 0.5, "reason": "yes"}
    server.body = {"results": [result], "meta": {"warnings": ["look out"]}}
    documents = [GivenDocument(None, "words"), GivenDocument(tmp_path / "a.png"), GivenDocument("fieldscope://x/1")]
    with pytest.warns(FieldscopeWarning, match="look out"):
        (placed,) = service(server, strategy="yes-no", budget=Budget(max_calls=3), explain=2).rerank("q", documents, 1)
    assert (placed.index, placed.score, placed.reason, placed.judged) == (1, 0.5, "yes", "picture")
    assert server.key == "Bearer fs_secret"
    assert server.sent == {
        "query": "q", "documents": [{"text": "words"}, {"image": ENCODED}, {"image": "fieldscope://x/1"}], "top_n": 1,
        "strategy": "yes-no", "budget": {"max_calls": 3}, "explain": 2, "return_documents": False,
    }  # fmt: skip
    with pytest.raises(BrokenImageError, match=r"can't read .*gone\.png"):
        service(server).rerank("q", [GivenDocument(tmp_path / "gone.png")], None)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, ConfigError, f"replied 401: no. Put one of its keys into {KEY}"),
        (404, ConfigError, "replied 404: no"),
        (429, LMMServerError, "replied 429: no"),
        (503, LMMServerError, "replied 503: no"),
    ],
)
def test_what_a_service_refuses_is_said_in_its_words(
    server: Server, status: int, kind: type[Exception], said: str
) -> None:
    server.status, server.body = status, {"message": "no"}
    with pytest.raises(kind, match=said):
        service(server).search("q", None, 3)


def test_a_service_that_is_not_there_says_how_to_start_it() -> None:
    with pytest.raises(LMMConnectionError, match="fieldscope serve"):
        Service("http://127.0.0.1:9").search("q", None, 3)

"""What the whole application must not do for anybody: each attack is refused with a clear error, or does no harm, and
nothing is touched by it."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image as PILImage

from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import ConfigError
from fieldscope.service.server.api.fetching import Address, Fetcher
from fieldscope.service.server.api.keys import KeyFile
from fieldscope.service.server.app import create_app
from tests.service.api.facts import COLLECTION, settings_of
from tests.service.api.whole import open_app
from tests.waiting import until

NASTY = "'; DROP TABLE jobs; DROP TABLE traces; --\"><script>alert('owned')</script><img src=x onerror=alert(1)>{{7*7}}"
GOOD = {"query": "crab", "documents": [f"fieldscope://{COLLECTION}/01.png"], "strategy": "yes-no"}
OPEN = {"/healthz", "/readyz"}


@dataclass(frozen=True)
class Attacked:
    """An application, and what it could have been made to do."""

    client: httpx.AsyncClient
    lmm: ScriptedLMM
    folder: Path

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file, the one that must stay secret among them, with size and time. The log of a database that is read
        is no file of anybody's."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm")
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
async def attacked(tmp_path: Path) -> AsyncIterator[Attacked]:
    async with attack(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def attack(folder: Path, **settings: Any) -> AsyncIterator[Attacked]:
    """An application whose pictures lie beside one that nobody may see."""
    PILImage.new("RGB", (8, 8), "#ff0000").save(folder / "secret.png")
    lmm = ScriptedLMM(lambda request: 0.7)
    async with open_app(folder, lmm, **settings) as client:
        await client.get("/readyz")
        yield Attacked(client, lmm, folder)


async def refused(attacked: Attacked, reply_to: Any, *statuses: int) -> dict[str, Any]:
    """The error that a request gets. Nothing is touched, and the service goes on."""
    before = attacked.files()
    reply = await reply_to
    assert reply.status_code in statuses, reply.text
    error = error_of(reply)
    assert attacked.files() == before
    assert attacked.lmm.requests == []
    assert (await attacked.client.get("/healthz")).status_code == 200
    return error


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error in a reply: JSON with a code and a sentence, and nothing of the inside."""
    assert reply.headers["content-type"] == "application/json"
    told = reply.json()
    assert told["message"] == told["detail"] == told["error"]["message"]
    assert told["error"]["code"].replace("_", "").isalpha()
    assert 0 < len(told["message"]) < 1000 and "\n" not in told["message"] and "Traceback" not in told["message"]
    error: dict[str, Any] = told["error"]
    return error


def everywhere(client: httpx.AsyncClient, picture: str) -> list[Any]:
    """Requests with a picture in each place that takes one."""
    search = {"query": "crab", "reference": picture, "strategy": "yes-no"}
    job = {"calls": [{"url": "/v1/rerank", "body": {**GOOD, "documents": [{"image": picture}]}}]}
    return [
        client.post("/v1/rerank", json={**GOOD, "documents": [{"image": picture}]}),
        client.post("/v2/rerank", json={**GOOD, "query": {"image": picture}}),
        client.post("/rerank", json={**GOOD, "documents": {"content": [image_url(picture)]}}),
        client.post("/v1/search", json=search),
        client.post("/v1/jobs", json=job),
        client.post("/v1/jobs", json={"calls": [{"url": "/v1/search", "body": search}]}),
    ]


def image_url(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "image_id",
    ["../secret.png", "..%2fsecret.png", "x/../../secret.png", "/etc/passwd", "01.png/../../secret.png",
     "..\\secret.png", "....//secret.png", "01.png\x00.jpg", "%2e%2e/secret.png", "file:///etc/passwd",
     "../../../../../../etc/passwd"],
)  # fmt: skip
async def test_a_path_in_an_images_id(attacked: Attacked, image_id: str) -> None:
    for picture in (image_id, f"fieldscope://{COLLECTION}/{image_id}", f"fieldscope://../{COLLECTION}/{image_id}"):
        for asked in everywhere(attacked.client, picture):
            await refused(attacked, asked, 404)
    for path in (quote(image_id, safe=""), image_id.replace("\x00", "%00").replace("..", "%2e%2e")):
        for address in (f"/v1/collections/{COLLECTION}/thumbnails/{path}", f"/thumbnails/{COLLECTION}/{path}.webp"):
            reply = await attacked.client.get(address)
            assert reply.status_code == 404 and reply.headers["content-type"] != "image/png"


@dataclass
class Inside:
    """A server that nobody from outside may reach, and what it was asked."""

    port: int
    asked: list[str]


@pytest.fixture
def inside() -> Iterator[Inside]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", AWAY[self.path].format(port=http.server_port))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield Inside(http.server_port, asked)
    http.shutdown()
    http.server_close()


AWAY = {
    "/away/loopback": "http://127.0.0.1:{port}/secret",
    "/away/name": "http://localhost:{port}/secret",
    "/away/private": "http://10.0.0.7/secret",
    "/away/metadata": "http://169.254.169.254/latest/meta-data",
    "/away/file": "file:///etc/passwd",
}
LOOKED_UP = {"localhost": "127.0.0.1", "127.1": "127.0.0.1", "2130706433": "127.0.0.1", "inside.test": "10.0.0.7"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "10.0.0.7", "192.168.1.1", "169.254.169.254",
     "[::ffff:127.0.0.1]", "inside.test"],
)  # fmt: skip
@pytest.mark.parametrize("allowed", [True, False])
async def test_an_address_inside(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, host: str, allowed: bool
) -> None:
    """Whether its host may be fetched from or not, and whatever its name leads to."""

    def look_up(name: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        """What a resolver says, spellings of 127.0.0.1 that are no dotted quads included."""
        return [(0, socket.SOCK_STREAM, 0, "", (LOOKED_UP.get(name, name), port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hosts = (f"{host.strip('[]')}:{inside.port}",) if allowed else ()
    async with attack(tmp_path, image_hosts=hosts) as attacked:
        for asked in everywhere(attacked.client, f"http://{host}:{inside.port}/secret.png"):
            error = await refused(attacked, asked, 400, 422)
            assert error["code"] == ("address_not_allowed" if allowed else "host_not_allowed")
    assert inside.asked == []


@pytest.mark.parametrize("path", AWAY)
async def test_a_redirect_inside(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")]

    public = functools.partial(Fetcher, resolve=resolve, allowed=lambda address: True)  # for this test it is outside
    monkeypatch.setattr("fieldscope.service.server.api.documents.Fetcher", public)
    async with attack(tmp_path, image_hosts=(f"pictures.test:{inside.port}",)) as attacked:
        picture = f"http://pictures.test:{inside.port}{path}"
        await refused(
            attacked, attacked.client.post("/v1/rerank", json={**GOOD, "documents": [{"image": picture}]}), 400, 422
        )
    assert inside.asked == [path]


def png_of(width: int, height: int) -> bytes:
    """A picture whose head claims so many pixels."""
    stream = io.BytesIO()
    PILImage.new("RGB", (8, 8)).save(stream, "PNG")
    data = stream.getvalue()
    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + data[24:29]
    return data[:12] + head + zlib.crc32(head).to_bytes(4) + data[33:]


def jpeg() -> bytes:
    stream = io.BytesIO()
    PILImage.effect_noise((64, 64), 50).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


BROKEN = {
    "a PNG of 50,000 x 50,000 pixels": (png_of(50_000, 50_000), "image_too_large"),
    "a truncated JPEG": (jpeg()[:600], "unreadable_image"),
    "a page": (b"<!doctype html><script>alert(1)</script>" * 20, "unreadable_image"),
    "a vector drawing": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>' * 9, "unreadable_image"),
    "a program": (b"\x7fELF" + b"\0" * 900, "unreadable_image"),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_picture_or_too_large_a_one(attacked: Attacked, data: bytes, code: str) -> None:
    for asked in everywhere(attacked.client, data_url(data)):
        assert (await refused(attacked, asked, 422))["code"] == code


async def test_a_polyglot_is_a_picture_and_nothing_else(attacked: Attacked) -> None:
    """A PNG that is a page and an archive, too: of it only the pixels are kept, and served as a picture."""
    stream = io.BytesIO()
    PILImage.new("RGB", (8, 8), "#123456").save(stream, "PNG")
    payload = b"<script>alert('polyglot')</script>PK\x05\x06" + b"\0" * 18
    picture = data_url(stream.getvalue() + payload)
    reply = await attacked.client.post("/v1/rerank", json={**GOOD, "documents": [picture]})
    assert reply.status_code == 200
    (kept,) = (attacked.folder / "data" / "pictures").glob("*.png")
    assert b"polyglot" not in kept.read_bytes() and b"PK" not in kept.read_bytes()


async def test_a_body_of_a_gigabyte_is_refused_before_it_has_come(attacked: Attacked) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1_000_000
            yield b" " * 1_000_000

    told = {"Content-Type": "application/json", "Content-Length": "1000000000"}
    for path in ("/v1/rerank", "/v1/search", "/v1/jobs"):
        sent = 0
        await refused(attacked, attacked.client.post(path, content=endless(), headers=told), 413)
        assert sent <= 1_000_000  # declared
        chunked = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        sent = 0
        await refused(attacked, attacked.client.post(path, content=endless(), headers=chunked), 413)
        assert sent < 70_000_000  # counted


@pytest.mark.parametrize("document", ["a crab", f"fieldscope://{COLLECTION}/01.png"])
async def test_ten_thousand_documents(attacked: Attacked, document: Any) -> None:
    body = {**GOOD, "documents": [document] * 10_000}
    parts = {**GOOD, "documents": {"content": [image_url(f"fieldscope://{COLLECTION}/01.png")] * 10_000}}
    for path, asked in (("/v1/rerank", body), ("/v2/rerank", parts)):
        error = await refused(attacked, attacked.client.post(path, json=asked), 422)
        assert error["code"] == "too_many_documents" and "limit of 1000" in error["message"]
    job = {"calls": [{"url": "/v1/rerank", "body": body}]}
    await refused(attacked, attacked.client.post("/v1/jobs", json=job), 422)
    many = {"calls": [{"url": "/v1/rerank", "body": GOOD}] * 10_000}
    await refused(attacked, attacked.client.post("/v1/jobs", json=many), 422)


async def requests_to_all(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> AsyncIterator[tuple[str, httpx.Response]]:
    """Every endpoint, and the viewer, asked with these headers."""
    app = client._transport.app  # type: ignore[attr-defined]
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            address = path.replace("{name}", COLLECTION).replace("{image_id}", "01.png")
            body = json.dumps(GOOD).encode() if method == "post" else None
            told = {"Content-Type": "application/json", **headers} if body else headers
            yield path, await client.request(method, address, content=body, headers=told)
    for path in ("/", "/try.html", "/served/", "/docs", "/openapi.json", "/static/viewer.js"):
        yield path, await client.get(path, headers=headers)


async def test_without_a_key_or_with_a_wrong_one_nothing_opens(tmp_path: Path) -> None:
    secret = KeyFile(tmp_path / "data" / "keys.json").add("alice")
    async with attack(tmp_path, host="0.0.0.0") as attacked:
        before = attacked.files()
        wrong = [{}, {"Authorization": f"Bearer {secret}x"}, {"X-API-Key": "fs_" + "A" * 43}, {"X-API-Key": NASTY}]
        for headers in wrong:
            async for path, reply in requests_to_all(attacked.client, {"Host": "public.example", **headers}):
                if path not in OPEN:
                    assert reply.status_code == 401, path
                    assert error_of(reply)["code"] == ("wrong_key" if headers else "no_key")
                    assert secret not in reply.text
        assert attacked.files() == before and attacked.lmm.requests == []
        right = await attacked.client.post("/v1/rerank", json=GOOD, headers={"Authorization": f"Bearer {secret}"})
        assert right.status_code == 200


def test_a_public_address_without_a_key_is_not_listened_at(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "reranker.example"):
        with pytest.raises(ConfigError, match="needs an API key"):
            create_app(settings_of(tmp_path, host=host))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.7", ""])
async def test_a_foreign_host_reaches_nothing(attacked: Attacked, host: str) -> None:
    before = attacked.files()
    async for path, reply in requests_to_all(attacked.client, {"Host": host}):
        assert reply.status_code == 403, path
        assert error_of(reply)["code"] == "foreign_host"
    assert attacked.files() == before and attacked.lmm.requests == []


async def test_a_foreign_page_can_post_nothing(attacked: Attacked) -> None:
    before = attacked.files()
    async for path, reply in requests_to_all(attacked.client, {"Origin": "https://evil.example"}):
        assert (reply.status_code, error_of(reply)["code"]) == (403, "foreign_origin"), path
    assert attacked.files() == before and attacked.lmm.requests == []


async def test_sql_and_html_where_words_are_taken(attacked: Attacked) -> None:
    """They are words like any other: ranked, kept, and shown escaped."""
    client = attacked.client
    texts: dict[str, Any] = {
        "query": NASTY,
        "documents": [NASTY, {"text": NASTY}],
        "model": NASTY,
        "user": {NASTY: NASTY},
    }
    dialogue = [{"question": NASTY, "answer": NASTY}]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/v1/rerank", texts | {"strategy": "yes-no"}),
        ("/v2/rerank", {**GOOD, "query": {"text": NASTY}, "explain": 1}),
        (
            "/v1/search",
            {
                "query": NASTY,
                "dialogue": dialogue,
                "strategy": "yes-no",
                "explain": 1,
                "predicates": True,
                NASTY: NASTY,
            },
        ),
    ]
    pages = []
    for path, body in calls:
        reply = await client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "application/json"
        trace = reply.headers["x-fieldscope-trace"]
        pages.append((await client.get(f"/v1/traces/{trace}/page")).headers["location"])
        assert (await client.get(f"/v1/traces/{trace}")).json()["query_text"] == NASTY
    told = {"calls": [{"url": path, "body": body, "custom_id": NASTY} for path, body in calls]}
    job = (await client.post("/v1/jobs", json=told)).json()
    events = (await client.get(job["events"])).text
    assert events.count("\nevent: result\n") == 3 and "event: done" in events
    view = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert [result["custom_id"] for result in view["results"]] == [NASTY] * 3
    for address in [*pages, "/served/", "/served/runs/"]:
        shown = await client.get(address)
        assert_harmless(shown)
    assert (await client.get("/v1/jobs")).json()["jobs"][0]["calls"]["done"] == 3  # every table is still there


async def test_sql_and_html_where_names_are_taken(attacked: Attacked) -> None:
    client, quoted = attacked.client, quote(NASTY, safe="")
    bodies: list[tuple[str, dict[str, Any]]] = [
        *(("/v1/rerank", {**GOOD, name: NASTY}) for name in ("strategy", "budget", "explain", "top_n", "documents")),
        ("/v1/rerank", {**GOOD, "documents": [{"image": NASTY}]}),
        ("/v1/rerank", {**GOOD, "documents": [f"fieldscope://{COLLECTION}/{NASTY}"]}),
        ("/v1/rerank", {**GOOD, "documents": [f"fieldscope://{NASTY}/01.png"]}),
        ("/v1/rerank", {**GOOD, "documents": [f"data:image/{NASTY};base64,AAAA"]}),
        *(("/v1/search", {"query": "crab", name: NASTY}) for name in ("collection", "reference", "strategy", "top_k")),
        ("/v1/jobs", {"calls": [{"url": NASTY, "body": {}}]}),
        ("/v1/jobs", {"calls": [{"url": "/v1/search", "body": {"query": "crab", "strategy": NASTY}}]}),
    ]
    for path, body in bodies:
        await refused(attacked, client.post(path, json=body), 400, 404, 422)
    for name in ("Strategy", "Explain", "Budget-Max-Calls", "Budget-Max-Tokens", "Budget-Deadline"):
        asked = client.post("/v1/rerank", json={**GOOD, "strategy": None}, headers={f"X-Fieldscope-{name}": NASTY})
        await refused(attacked, asked, 400, 422)
    for method, path in (
        ("GET", f"/v1/jobs/{quoted}"), ("GET", f"/v1/jobs/{quoted}/events"), ("POST", f"/v1/jobs/{quoted}/cancel"),
        ("DELETE", f"/v1/jobs/{quoted}"), ("GET", f"/v1/traces/{quoted}"), ("GET", f"/v1/traces/{quoted}/page"),
        ("GET", f"/v1/collections/{quoted}/images"), ("GET", f"/v1/collections/{COLLECTION}/thumbnails/{quoted}"),
        ("GET", f"/v1/jobs?limit={quoted}"), ("GET", f"/v1/{quoted}"),
    ):  # fmt: skip
        await refused(attacked, client.request(method, path), 404, 422)
    job = (await client.post("/v1/jobs", json={"calls": [{"url": "/v1/search", "body": {"query": "crab"}}]})).json()
    assert (await client.get(job["events"], headers={"Last-Event-ID": NASTY})).status_code == 422
    reply = await client.get("/healthz", headers={"X-Request-Id": NASTY, "X-API-Key": NASTY, "Accept": NASTY})
    assert reply.status_code == 200 and NASTY not in str(reply.headers)
    for address in (
        f"/{quoted}",
        f"/runs/{quoted}/",
        f"/served/runs/{quoted}/queries/{quoted}.html",
        f"/try.html?q={quoted}",
    ):
        assert_harmless(await client.get(address))


async def test_sql_and_html_in_a_mark(attacked: Attacked) -> None:
    client = attacked.client
    reply = await client.post("/v1/rerank", json=GOOD)
    page = (await client.get(f"/v1/traces/{reply.json()['id']}/page")).headers["location"]
    shown = (await client.get(page)).text
    (image,) = {part for part in shown.split('"') if part.endswith(".html") and "/images/" in part} or {""}
    address = httpx.URL(f"http://localhost{page}").join(image).path
    origin = {"Origin": "http://localhost"}
    for form in ({"mark": "wrong", "note": NASTY}, {"mark": NASTY}, {"predicate": NASTY, "mark": "right"}):
        told = await client.post(address, data=form, headers=origin)
        assert told.status_code == (303 if "note" in form else 409), told.text
        assert_harmless(await client.get(address))
    assert "DROP TABLE" in (await client.get(address)).text  # as a note
    foreign = await client.post(address, data={"mark": "right"}, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


def assert_harmless(page: httpx.Response) -> None:
    """A page, in which nothing of what somebody wrote is markup, and no script but its own would run."""
    assert page.status_code < 500 and page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert (
        "<script>alert" not in page.text
        and "<img src=x" not in page.text
        and "49" not in page.text.split("DROP")[0][-9:]
    )


async def test_hours_of_nothing_hold_nobody_up(attacked: Attacked) -> None:
    """A client that sends half a body and waits: the others are served."""
    gate, begun = asyncio.Event(), list[int]()

    async def half() -> AsyncIterator[bytes]:
        yield b'{"query": '
        begun.append(1)
        await gate.wait()
        yield b'"crab"}'

    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    slow = [asyncio.create_task(attacked.client.post("/v1/rerank", content=half(), headers=headers)) for _ in range(50)]
    await until(lambda: len(begun) == len(slow))
    assert (await attacked.client.post("/v1/rerank", json=GOOD)).status_code == 200
    gate.set()
    assert {reply.status_code for reply in await asyncio.gather(*slow)} == {422}

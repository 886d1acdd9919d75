"""Bodies that would cost far more than they hold are refused before any of it is worked on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.service.server.api import guard
from fieldscope.service.server.api.documents import DocumentObject
from fieldscope.service.server.api.keys import KeyFile
from tests.service.api.facts import COLLECTION
from tests.service.api.test_guard import JSON, LOCAL, Door
from tests.service.api.whole import open_app

GOOD = {"query": "crab", "documents": [f"fieldscope://{COLLECTION}/01.png"], "strategy": "yes-no"}
N = 20_000
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "numbers for documents": ("/v1/rerank", {**GOOD, "documents": [1] * N}),
    "numbers for vLLM's parts": ("/v2/rerank", {**GOOD, "documents": {"content": [1] * N}}),
    "numbers for a document's parts": ("/rerank", {**GOOD, "documents": [{"content": [1] * N}]}),
    "numbers for the query's parts": ("/v1/rerank", {**GOOD, "query": {"content": [1] * N}}),
    "empty documents": ("/v1/rerank", {**GOOD, "documents": [{}] * N}),
    "unknown fields": ("/v1/search", {"query": "crab", **{f"k{n}": 1 for n in range(N)}}),
    "unknown fields of a budget": ("/v1/rerank", {**GOOD, "budget": {f"k{n}": 1 for n in range(N)}}),
    "numbers for rounds": ("/v1/search", {"query": "crab", "dialogue": [1] * N}),
    "numbers for calls": ("/v1/jobs", {"calls": [1] * N}),
    "numbers for documents of calls": (
        "/v1/jobs",
        {"calls": [{"url": "/v1/rerank", "body": {**GOOD, "documents": [1] * 1000}}] * 50},
    ),
}


@pytest.mark.parametrize(("path", "body"), WRONG.values(), ids=WRONG.keys())
async def test_of_what_is_wrong_a_thousand_times_only_the_first_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """What was found wrong is counted where it is put into words."""
    from fieldscope.service.server.api import errors

    faults: list[object] = []
    put = errors._fault
    monkeypatch.setattr(errors, "_fault", lambda fault: faults.append(fault) or put(fault))
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        reply = await client.post(path, json=body)
    assert reply.status_code == 422 and len(reply.text) < 3000
    assert len(faults) < 10


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/search", "/v1/jobs"])
@pytest.mark.parametrize("body", [b"", b"  ", b"\xff\xfe", b"{"])
async def test_a_body_that_is_no_json_is_the_callers_fault(tmp_path: Path, path: str, body: bytes) -> None:
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        for headers in ({}, {"content-type": "application/json"}):
            reply = await client.post(path, content=body, headers=headers)
            assert reply.status_code in (400, 415, 422), (path, body, headers, reply.text)


NAMES = {"5,000 characters": "x" * 5_000, "half a character": "\ud800", "the other half": "a\udcffb", "NUL": "a\0b"}


def everywhere(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name, or a text, at each place of each body that takes one."""
    search = {"query": "crab", "strategy": "yes-no"}
    for key in ("query", "strategy", "budget", "explain", name):
        yield "/v1/rerank", {**GOOD, key: name}
    for document in (name, {"text": name}, {"image": name}, {name: 1}, {"content": [{"type": name}]}, f"image: {name}"):
        yield "/v2/rerank", {**GOOD, "documents": [document]}
    for key in ("query", "collection", "reference", "strategy", name):
        yield "/v1/search", {**search, key: name}
    yield "/v1/search", {**search, "dialogue": [{"question": name, "answer": name}]}
    yield "/v1/jobs", {"calls": [{"url": name, "body": GOOD}]}
    yield "/v1/jobs", {"calls": [{"url": "/v1/rerank", "body": GOOD, "custom_id": name}]}
    yield "/v1/jobs", {"calls": [{"url": "/v1/rerank", "body": {**GOOD, "strategy": name}}]}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
async def test_no_name_and_no_text_breaks_anything(tmp_path: Path, name: str) -> None:
    whole = not any("\ud800" <= character <= "\udfff" for character in name)
    async with open_app(tmp_path, ScriptedLMM(lambda request: 0.7)) as client:
        for path, body in everywhere(name):
            reply = await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
            assert reply.status_code < 500 and (whole or reply.status_code == 422), (path, body, reply.text)
            assert reply.status_code in (200, 202) or len(reply.text) < 3000, reply.text[:300]
        for address in ("/v1/jobs/{}", "/v1/traces/{}", "/v1/collections/{}/images", "/runs/{}/index.html",
                        "/static/{}", "/thumbnails/a/{}.webp", "/compare/{}/index.html", "/{}"):  # fmt: skip
            for part in ("x" * 5_000, "%ED%A0%80", "%00", "%FF"):
                assert 400 <= (await client.get(address.format(part))).status_code < 500
        emoji = {**GOOD, "documents": ["\U0001f980", *GOOD["documents"]]}
        reply = await client.post("/v1/rerank", content=json.dumps(emoji), headers={"Content-Type": "application/json"})
        assert reply.status_code == 200, "two halves that belong together are one character"


async def test_a_body_of_millions_of_values_is_refused_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_MOST_VALUES", 100)
    with pytest.raises(HTTPException) as refused:
        await Door().ask(LOCAL, JSON, chunks=(b"[[[],", b"[]," * 60, b"[]]"))
    assert refused.value.status_code == 413


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from starlette.requests import Request

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/rerank", "headers": [(b"host", b"localhost")]}

    async def send(message: Message) -> None:
        """Nobody listens."""

    for pause, seconds in ((0.01, 60.0), (60.0, 0.01)):
        monkeypatch.setattr(guard, "_BODY_PAUSE", pause)
        with pytest.raises(HTTPException) as refused:
            await guard.Guard(
                app, keys=KeyFile(tmp_path / "keys.json"), max_body=10, max_seconds=seconds, public=False
            )(scope, never, send)
        assert refused.value.status_code == 408


def test_a_document_has_a_few_parts() -> None:
    part = {"type": "text", "text": "a"}
    DocumentObject.model_validate({"content": [part] * 100})
    with pytest.raises(ValueError, match="at most 100"):
        DocumentObject.model_validate({"content": [part] * 101})

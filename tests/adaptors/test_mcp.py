"""`fieldscope mcp` in a process of its own, asked by the official client over standard input and output."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from tests.adaptors.conftest import COLLECTION, QUERY, Expected, names
from tests.clients.served import Served, environment

mcp = pytest.importorskip("mcp", reason="the adaptors' environment is another one: make test-adaptors")

pytestmark = [pytest.mark.adaptors, pytest.mark.timeout(600)]


@asynccontextmanager
async def assistant(expected: Expected, *options: str) -> AsyncIterator[Any]:
    """A client of a server that it starts."""
    command = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "fieldscope", "mcp", *options],
        env=dict(environment(expected.cache)),
        cwd=str(Path(__file__).resolve().parents[2]),
    )
    async with mcp.Client(command, read_timeout_seconds=300) as client:
        yield client


def ids(expected: Expected) -> list[str]:
    return [f"fieldscope://{COLLECTION}/{path.name}" for path in expected.paths]


def image_names(ranked: dict[str, Any]) -> list[str]:
    return [result["image"].rpartition("/")[2] for result in ranked["results"]]


async def story(client: Any, expected: Expected) -> None:
    """Search, rerank what is there, and ask why."""
    tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"search", "rerank", "explain"}
    assert all(tool.annotations.read_only_hint for tool in tools)
    count = len(expected.reasons)
    found = (await client.call_tool("search", {"query": QUERY, "top_n": 4, "reasons": count})).structured_content
    assert image_names(found) == names(expected.found)[:4]
    given = {"query": QUERY, "images": ids(expected), "reasons": count}
    ranked = (await client.call_tool("rerank", given)).structured_content
    assert image_names(ranked) == expected.order
    said = {result["image"].rpartition("/")[2]: result["reason"] for result in ranked["results"]}
    assert {name: reason for name, reason in said.items() if reason} == expected.reasons
    first = ranked["results"][0]
    assert first["judged"] == "picture"
    text, picture = (
        await client.call_tool("explain", {"trace_id": ranked["trace_id"], "image": first["image"]})
    ).content
    explained = json.loads(text.text)
    assert (explained["rank"], explained["reason"]) == (1, first["reason"])
    assert explained["why"] and "is the crab orange?" in {question["question"] for question in explained["questions"]}
    assert all(question["answer"] for question in explained["questions"])
    with PILImage.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        assert (image.format, picture.mime_type) == ("WEBP", "image/webp")


async def test_an_assistant_searches_reranks_and_asks_why(expected: Expected, tmp_path: Path) -> None:
    options = ("--collection", f"{COLLECTION}={expected.pictures}", "--data", str(tmp_path / "data"))
    async with assistant(expected, *options) as client:
        assert f"{COLLECTION} (8 images)" in client.instructions
        await story(client, expected)
        for tool, arguments, sentence in (
            ("rerank", {"query": QUERY, "images": ["/etc/passwd"]}, "not an id of a registered image"),
            ("rerank", {"query": QUERY, "images": [f"fieldscope://{COLLECTION}/../x.png"]}, "not an image of"),
            ("search", {"query": QUERY, "collection": "nowhere"}, "unknown collection 'nowhere'"),
            ("search", {"query": "a xylophone"}, "xylophone"),
            ("explain", {"trace_id": "none", "image": ids(expected)[0]}, "there is no trace 'none'"),
        ):
            refused = await client.call_tool(tool, arguments)
            assert refused.is_error and sentence in refused.content[0].text, refused


async def test_an_assistant_uses_a_running_service(expected: Expected, served: Served) -> None:
    async with assistant(expected, "--url", served.url) as client:
        await story(client, expected)

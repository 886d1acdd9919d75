"""A service whose first stage is a server of embeddings, and what a request's instruction does to its vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldscope.service.wiring.instructions import UNREAD
from tests.retrieval.embedders import MODEL, Embedder
from tests.service.api.conftest import Opened, Service, ids

INSTRUCTION = "Prefer what is blue, blue, blue."


@pytest.fixture
async def service(opened: Opened, tmp_path: Path) -> AsyncIterator[Service]:
    folder = tmp_path / "colours"
    folder.mkdir()
    for name, colour in (("red", "#e00000"), ("green", "#00e000"), ("blue", "#0000e0")):
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")
    with Embedder().serving() as embedder:
        settings: dict[str, Any] = {"collections": {"colours": folder}, "strategy": "clip"}
        async with opened(encoder=f"{embedder.url}#{MODEL}", **settings) as service:
            yield service


async def best(service: Service, path: str, **body: Any) -> str:
    response = await service.client.post(path, json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert UNREAD not in [*reply.get("flags", []), *(reply.get("meta", {}).get("warnings") or [])]
    (first, *_) = reply["results"]
    return str(first["image"] if path.endswith("search") else body["documents"][first["index"]])


async def test_a_search_under_an_instruction(service: Service) -> None:
    for instruction, image in ((None, "red.png"), (INSTRUCTION, "blue.png"), (None, "red.png")):
        assert await best(service, "/v1/search", query="red", instruction=instruction) == image
    composed = {"query": "more green", "reference": "red.png"}
    assert await best(service, "/v1/search", **composed) == "green.png"
    assert await best(service, "/v1/search", **composed, instruction=INSTRUCTION) == "blue.png"


async def test_a_rerank_under_an_instruction(service: Service) -> None:
    documents = [f"fieldscope://colours/{name}.png" for name in ("red", "green", "blue")]
    assert await best(service, "/v1/rerank", query="red", documents=documents) == documents[0]
    assert await best(service, "/v1/rerank", query="red", documents=documents, instruction=INSTRUCTION) == documents[2]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/rerank"])
async def test_an_instruction_without_words_is_refused(service: Service, path: str) -> None:
    documents = {"documents": ["fieldscope://colours/red.png"]} if path.endswith("rerank") else {}
    response = await service.client.post(path, json={"query": "red", "instruction": " ", **documents})
    assert response.status_code == 422 and "instruction" in response.text


@pytest.mark.usefixtures("world")
async def test_an_encoder_that_reads_none_is_a_flag(opened: Opened) -> None:
    body = {"query": "two red crabs", "strategy": "clip"}
    async with opened() as service:
        plain = (await service.client.post("/v1/search", json=body)).json()
        search = (await service.client.post("/v1/search", json=body | {"instruction": "Find animals."})).json()
        rerank = (await service.rerank(**body, documents=ids(1, 2), instruction="Find animals.")).json()
    assert plain["flags"] == [] and search["flags"] == [UNREAD] and rerank["meta"]["warnings"] == [UNREAD]
    assert search["results"] == plain["results"]

"""`filter` in /v1/search and /v1/rerank: by the metadata of a collection, before anything is searched or asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.core.errors import ConfigError
from fieldscope.service.server.settings import read_settings
from tests.agent.oracle import Oracle, facts_of, oracle_of
from tests.service.api.facts import COLLECTION, Service, open_service, painted

PREFIX = f"fieldscope://{COLLECTION}/"
PLANTED = "PLANTED-7f3a"


class Overheard:
    """An oracle that remembers what it was asked."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.asked: list[LMMRequest] = []

    @property
    def identity(self) -> str:
        return self.oracle.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self.asked.append(request)
        return await self.oracle.generate(request)

    async def aclose(self) -> None:
        await self.oracle.aclose()


@pytest.fixture
def overheard(tmp_path: Path) -> Overheard:
    return Overheard(oracle_of(painted(tmp_path / "pictures")))


@pytest.fixture
async def service(tmp_path: Path, overheard: Overheard) -> AsyncIterator[Service]:
    """Every second picture is of station A; all of them have a planted note."""
    rows = ["file,station,number,note"]
    rows += [f"{number:02d}.png,{'AB'[number % 2]},{number},{PLANTED}" for number in range(32)]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    metadata = {COLLECTION: tmp_path / "table.csv"}
    async with open_service(tmp_path, overheard, metadata=metadata) as opened:  # type: ignore[arg-type]
        yield opened


async def search(service: Service, **body: object) -> tuple[int, dict[str, object]]:
    fields = {"query": "crab, snow", "strategy": "yes-no", "top_n": 40, "top_k": 40, **body}
    response = await service.client.post("/v1/search", json=fields)
    return response.status_code, response.json()


async def test_a_search_finds_only_what_satisfies_the_filter(service: Service) -> None:
    status, reply = await search(service, filter={"station": "A", "number": {"<": 20}})
    assert status == 200, reply
    results = reply["results"]
    assert isinstance(results, list) and len(results) == 10 == reply["candidates"]
    assert all(int(found["image"][:2]) % 2 == 0 for found in results)
    assert all(found["metadata"]["station"] == "A" for found in results)
    _, everything = await search(service)
    assert everything["candidates"] == 32
    _, again = await search(service, filter=["station = B"])
    assert again["candidates"] == 16


async def test_reranked_documents_keep_their_index_in_the_request(service: Service) -> None:
    documents = [f"{PREFIX}{number:02d}.png" for number in (1, 5, 4, 3, 12)]
    body = {"query": "crab", "documents": documents, "strategy": "yes-no", "filter": "station = A"}
    reply = (await service.client.post("/v1/rerank", json=body)).json()
    assert sorted(result["index"] for result in reply["results"]) == [2, 4]
    assert all(result["metadata"]["station"] == "A" for result in reply["results"])
    whole = (await service.client.post("/v1/rerank", json={**body, "filter": None})).json()
    assert len(whole["results"]) == 5
    nothing = {**body, "query": "crab, net, snow, rain, night", "strategy": "predicates"}
    said = (await service.client.post("/v1/rerank", json=nothing)).json()
    assert {near["index"] for near in said["nothing"]["nearest"]} == {2, 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("statoin = A", "did you mean 'station'"),
        ("station", "no condition of a filter"),
        ({}, "has no condition"),
        ({"number": {"gt": 3}}, "'gt'"),
        ("number > many", "has numbers"),
        ("station = Z", "satisfies the filter"),
        (7, "filter"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/rerank", "/v1/jobs"])
async def test_a_filter_that_cannot_be_used_is_refused(
    service: Service, overheard: Overheard, path: str, given: object, said: str
) -> None:
    body: dict[str, object] = {"query": "crab", "filter": given}
    if path == "/v1/rerank":
        body["documents"] = [f"{PREFIX}01.png"]
    if path == "/v1/jobs":
        body = {"calls": [{"url": "/v1/search", "body": body}]}
    response = await service.client.post(path, json=body)
    assert response.status_code == 422, response.text
    message = response.json()["error"]["message"]
    assert said in message and "\n" not in message
    assert overheard.asked == []


@pytest.mark.parametrize("document", ["a crab on a beach", {"image": "data:image/png;base64,aGVsbG8="}])
async def test_documents_without_metadata_are_refused(service: Service, document: object) -> None:
    body = {"query": "crab", "documents": [f"{PREFIX}01.png", document], "filter": "station = B"}
    response = await service.client.post("/v1/rerank", json=body)
    assert response.status_code == 422
    assert "document 1" in response.json()["message"]


@pytest.mark.parametrize("strategy", ["agent", "yes-no-fused", "imagescope"])
async def test_metadata_reaches_no_prompt(service: Service, overheard: Overheard, strategy: str) -> None:
    body = {"filter": {"note": PLANTED, "station": "A"}, "strategy": strategy, "explain": 3, "predicates": True}
    status, reply = await search(service, **body)
    assert status == 200, reply
    assert PLANTED in json.dumps(reply)
    documents = [f"{PREFIX}{number:02d}.png" for number in range(6)]
    ranked = {"query": "crab", "documents": documents, "strategy": strategy, "filter": [f"note = {PLANTED}"]}
    assert (await service.client.post("/v1/rerank", json=ranked)).status_code == 200
    assert overheard.asked
    assert all(PLANTED not in repr(request) for request in overheard.asked)


async def test_the_metadata_is_kept_beside_the_index(tmp_path: Path, service: Service) -> None:
    (kept,) = (tmp_path / "data" / "indexes").glob("*/metadata.json")
    assert json.loads(kept.read_bytes())["columns"] == ["file", "station", "number", "note"]
    assert facts_of("00.png") is not None


def test_a_table_of_an_unknown_collection_is_refused(tmp_path: Path) -> None:
    flags = {"collections": [f"birds={tmp_path}"], "metadata": ["brids=table.csv"]}
    with pytest.raises(ConfigError, match="did you mean 'birds'"):
        read_settings(flags, None, {})

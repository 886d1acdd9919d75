"""What there is to look at: collections, pictures, strategies, runs and traces."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from PIL import Image as PILImage

from fieldscope.agent.strategies.strategy import list_strategies
from fieldscope.service.server.app import create_app
from tests.eval.fabricated import fabricate
from tests.service.api.facts import COLLECTION, FactsEncoder, Service, open_service, settings_of


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path, runs=tmp_path / "runs") as opened:
        yield opened


async def test_collections_say_what_they_hold(service: Service) -> None:
    (found,) = (await service.client.get("/v1/collections")).json()["collections"]
    assert (found["name"], found["images"], found["searchable"], found["captions"]) == (COLLECTION, 32, True, False)
    assert len(found["sample"]) == len(set(found["sample"])) == 6
    for image_id in found["sample"]:
        assert (await service.client.get(f"/v1/collections/{COLLECTION}/thumbnails/{image_id}")).status_code == 200


@pytest.mark.parametrize("size", [1, 7, 32, 100])
async def test_pages_hold_every_image_once(service: Service, size: int) -> None:
    seen: list[str] = []
    address = f"/v1/collections/{COLLECTION}/images"
    pages = (await service.client.get(address, params={"size": size})).json()["pages"]
    for page in range(1, pages + 1):
        told = (await service.client.get(address, params={"size": size, "page": page})).json()
        assert len(told["images"]) <= size
        seen += [image["id"] for image in told["images"]]
    assert seen == [f"{n:02}.png" for n in range(32)]
    assert (await service.client.get(address, params={"page": pages + 1, "size": size})).json()["images"] == []


async def test_a_thumbnail_is_a_small_picture(service: Service) -> None:
    told = (await service.client.get(f"/v1/collections/{COLLECTION}/images")).json()
    response = await service.client.get(told["images"][3]["thumbnail"])
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["x-content-type-options"] == "nosniff"
    with PILImage.open(io.BytesIO(response.content)) as image:
        assert image.format == "WEBP" and max(image.size) <= 160


@pytest.mark.parametrize(
    "path", ["..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "x.png", "..%2fdata%2fjobs.sqlite", "%00"]
)
async def test_only_pictures_of_the_collection_are_shown(service: Service, path: str) -> None:
    response = await service.client.get(f"/v1/collections/{COLLECTION}/thumbnails/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "no_such_image"


async def test_an_unknown_collection_is_not_found(service: Service) -> None:
    for path in ("images", "thumbnails/00.png"):
        response = await service.client.get(f"/v1/collections/nothing/{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_collection")


async def test_strategies_say_what_they_do_and_cost(service: Service) -> None:
    told = (await service.client.get("/v1/strategies")).json()["strategies"]
    by_name = {each["name"]: each for each in told}
    assert by_name.keys() == set(list_strategies())
    assert [each["name"] for each in told if each["default"]] == ["agent"] == [told[0]["name"]]
    assert by_name["clip"]["asks"] is False and by_name["clip"]["cost"]["calls"] == 0
    assert by_name["clip"]["stages"] == ["retrieve"]
    yes_no = by_name["yes-no"]["cost"]
    assert yes_no["calls"] == yes_no["candidates"] == 100 and yes_no["at_most"] is False
    assert by_name["agent"]["stages"][:3] == ["retrieve", "synthesize", "decompose"]
    assert by_name["agent"]["cost"]["calls"] > yes_no["calls"]
    assert sum(by_name["agent"]["cost"]["by_stage"].values()) == pytest.approx(by_name["agent"]["cost"]["calls"], abs=1)


async def test_runs_are_those_of_the_folder(service: Service, tmp_path: Path) -> None:
    assert (await service.client.get("/v1/runs")).json() == {"runs": []}
    manifest = fabricate(tmp_path / "runs" / "one", {"q1": 0.5}, lmm="m") / "manifest.json"
    told = json.loads(manifest.read_bytes())
    told["configuration"]["strategy"] = {"name": "yes-no"}
    manifest.write_text(json.dumps(told))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "manifest.json").write_text("{")
    broken, one = (await service.client.get("/v1/runs")).json()["runs"]
    assert broken["problem"] and not broken["finished"]
    assert (one["name"], one["benchmark"], one["queries"], one["finished"]) == ("one", "birds", 1, True)
    assert (one["strategy"], one["model"]) == ("yes-no", "m")
    assert one["page"] == "/runs/one/index.html"


async def test_a_trace_leads_to_its_page(service: Service) -> None:
    reply = (await service.client.post("/v1/search", json={"query": "crab", "strategy": "yes-no"})).json()
    response = await service.client.get(f"/v1/traces/{reply['trace_id']}/page")
    assert response.status_code == 307
    assert response.headers["location"].startswith("/served/runs/")
    assert reply["trace_id"] in response.headers["location"]
    for path in ("", "/page"):
        missing = await service.client.get(f"/v1/traces/nothing{path}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_trace")


def test_endpoints_are_analysed_once_however_many_applications_there_are(tmp_path: Path) -> None:
    one, other = (create_app(settings_of(tmp_path), encoder=FactsEncoder()) for _ in range(2))
    there = {id(route) for route in other.routes}
    shared = {route.path for route in one.routes if isinstance(route, APIRoute) and id(route) in there}
    assert {"/v1/rerank", "/v1/search", "/v1/jobs/{job_id}"} <= shared
    assert {route.path for route in one.routes if isinstance(route, APIRoute)} == shared


def test_every_endpoint_is_described(tmp_path: Path) -> None:
    document = create_app(settings_of(tmp_path), encoder=FactsEncoder()).openapi()
    ours = ("/v1/search", "/v1/jobs", "/v1/collections", "/v1/strategies", "/v1/runs", "/v1/traces")
    paths = {path: methods for path, methods in document["paths"].items() if path.startswith(ours)}
    assert len(paths) >= 11
    for path, methods in paths.items():
        for method, told in methods.items():
            assert told["summary"] and told["description"], (method, path)
            assert "422" not in told["responses"] or "ErrorBody" in str(told["responses"]["422"]), (method, path)
    assert document["components"]["schemas"]["SearchBody"]["examples"]
    assert document["components"]["schemas"]["JobBody"]["examples"]

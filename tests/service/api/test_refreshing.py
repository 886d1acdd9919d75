"""Collections and their indexes, refreshed while the service runs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.retrieval.library import build_index
from tests.agent.oracle import oracle_of
from tests.service.api.facts import COLLECTION, FactsEncoder, Service, open_service, painted
from tests.service.api.whole import open_app

PATH = f"/v1/collections/{COLLECTION}/refresh"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as opened:
        yield opened


async def images(service: Service, **body: object) -> set[str]:
    fields = {"query": "crab, snow", "strategy": "yes-no", "top_n": 100, "top_k": 100, **body}
    response = await service.client.post("/v1/search", json=fields)
    assert response.status_code == 200, response.text
    return {found["image"] for found in response.json()["results"]}


async def test_new_changed_and_removed_images_are_found_without_a_restart(service: Service, tmp_path: Path) -> None:
    before = await images(service)
    pictures = tmp_path / "pictures"
    shutil.copy(pictures / "07.png", pictures / "new.png")
    (pictures / "00.png").unlink()
    (pictures / "broken.png").write_bytes(b"\x89PNG no more")
    service.engine.refreshing.start(COLLECTION)
    refresh = await service.engine.refreshing.wait(COLLECTION)
    assert (refresh.state, refresh.error) == ("done", None)
    assert any("broken.png" in line for line in refresh.notes)
    assert await images(service) == {*before, "new.png"} - {"00.png"}
    listed = (await service.client.get("/v1/collections")).json()["collections"][0]
    assert listed["images"] == len(before) + 1  # the broken one is listed, and is not searched
    reranked = {"query": "crab", "documents": [f"fieldscope://{COLLECTION}/new.png"], "strategy": "yes-no"}
    assert (await service.client.post("/v1/rerank", json=reranked)).status_code == 200


async def test_a_changed_picture_is_looked_at_again(service: Service, tmp_path: Path) -> None:
    """02.png gets the pixels of 31.png, which shows everything."""
    body = {"query": "crab, net, snow, rain, night", "strategy": "yes-no", "top_n": 1, "top_k": 40}
    shutil.copy(tmp_path / "pictures" / "31.png", tmp_path / "pictures" / "02.png")
    (tmp_path / "pictures" / "31.png").unlink()
    service.engine.refreshing.start(COLLECTION)
    assert (await service.engine.refreshing.wait(COLLECTION)).state == "done"
    (best,) = (await service.client.post("/v1/search", json=body)).json()["results"]
    assert best["image"] == "02.png"


async def test_a_refresh_that_fails_leaves_the_collection_as_it_was(service: Service, tmp_path: Path) -> None:
    before = await images(service)
    (tmp_path / "pictures").rename(tmp_path / "away")
    service.engine.refreshing.start(COLLECTION)
    refresh = await service.engine.refreshing.wait(COLLECTION)
    assert refresh.state == "failed" and "pictures" in str(refresh.error)
    (tmp_path / "away").rename(tmp_path / "pictures")
    assert await images(service) == before


async def test_metadata_is_read_again(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("file,station\n07.png,A\n", encoding="utf-8")
    async with open_service(tmp_path, metadata={COLLECTION: table}) as service:
        assert await images(service, filter="station = A") == {"07.png"}
        table.write_text("file,station\n07.png,B\n08.png,A\n", encoding="utf-8")
        service.engine.refreshing.start(COLLECTION)
        await service.engine.refreshing.wait(COLLECTION)
        assert await images(service, filter="station = A") == {"08.png"}


async def test_an_index_that_was_written_again_is_opened_by_the_next_search(tmp_path: Path) -> None:
    pictures, index = painted(tmp_path / "own"), tmp_path / "served" / "pictures"
    build_index(pictures, FactsEncoder(), index)
    async with open_service(tmp_path / "served", oracle_of(pictures)) as service:
        before = await images(service)
        shutil.copy(tmp_path / "own" / "07.png", tmp_path / "own" / "new.png")
        build_index(painted(tmp_path / "own"), FactsEncoder(), index)
        assert await images(service) == {*before, "new.png"}


async def test_the_endpoint_starts_a_refresh_and_says_how_it_went(tmp_path: Path) -> None:
    async with open_app(tmp_path) as client:
        assert (await client.get(PATH)).json()["state"] == "never"
        PILImage.new("RGB", (8, 8), (8, 100, 200)).save(tmp_path / "pictures" / "new.png")
        started = await client.post(PATH)
        assert started.status_code == 202 and started.json()["state"] == "working"
        while (state := (await client.get(PATH)).json())["state"] == "working":
            await asyncio.sleep(0)  # these calls never leave the event loop to the refresh
        assert (state["state"], state["images"]) == ("done", started.json()["images"] + 1)
        assert (await client.post("/v1/collections/other/refresh")).status_code == 404

"""The accepted images of a kept search, downloaded in the formats of other programs, and from its folder alone."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope.service.exports.kept import open_finds
from fieldscope.service.metadata.records import Records
from fieldscope.service.metadata.store import write_records
from tests.service.api.facts import COLLECTION, Service, open_service

PREFIX = f"fieldscope://{COLLECTION}/"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    rows = ["file,station"] + [f"{number:02d}.png,{'AB'[number % 2]}" for number in range(32)]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    async with open_service(tmp_path, metadata={COLLECTION: tmp_path / "table.csv"}) as opened:
        yield opened


async def kept(service: Service) -> dict[str, Any]:
    body = {"query": "crab, no net", "strategy": "predicates", "top_k": 12, "filter": "station = B"}
    begun = (await service.client.post("/v1/searches", json=body)).json()
    async for _ in service.jobs.follow(begun["job"], 0):
        pass
    view: dict[str, Any] = (await service.client.get(f"/v1/searches/{begun['id']}")).json()
    return view


async def test_the_accepted_are_downloaded_in_every_format(service: Service, tmp_path: Path) -> None:
    view = await kept(service)
    first, second, third = (row["image"] for row in view["results"][:3])
    at = f"/v1/searches/{view['id']}"
    everything = list(csv.DictReader(io.StringIO((await service.client.get(f"{at}/finds.csv")).text)))
    assert len(everything) == 12 and all(row["station"] == "B" for row in everything)
    marks = {first: "accepted", second: "rejected", third: "accepted"}
    assert (await service.client.post(f"{at}/marks", json={"marks": marks})).status_code == 200

    names = [image.removeprefix(PREFIX) for image in (first, third)]
    reply = await service.client.get(f"{at}/finds.csv")
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [row["image"] for row in rows] == names
    assert all((row["mark"], row["station"]) == ("accepted", "B") and row["why"] for row in rows)
    assert str(tmp_path) not in reply.text  # clients need not know where files are
    occurrences = csv.DictReader(io.StringIO((await service.client.get(f"{at}/darwin-core.csv")).text))
    assert [row["associatedMedia"] for row in occurrences] == names
    coco = (await service.client.get(f"{at}/coco.json")).json()
    assert [image["file_name"] for image in coco["images"]] == names
    with zipfile.ZipFile(io.BytesIO((await service.client.get(f"{at}/page.zip")).content)) as archive:
        assert len(archive.namelist()) == 3 and "index.html" in archive.namelist()

    found = open_finds(tmp_path / "data" / "searches" / view["id"])
    assert [image.image_id for image in found.images] == [first, third]
    assert [image.metadata["station"] for image in found.images] == ["B", "B"]
    assert [path.name for path in found.files()] == names


async def test_what_cannot_be_downloaded_says_why(service: Service) -> None:
    view = await kept(service)
    at = f"/v1/searches/{view['id']}"
    marks = {view["results"][0]["image"]: "rejected"}
    assert (await service.client.post(f"{at}/marks", json={"marks": marks})).status_code == 200
    refused = await service.client.get(f"{at}/coco.json")
    assert refused.status_code == 409 and "none of 1 marked images is accepted" in refused.json()["message"]
    assert (await service.client.get(f"{at}/finds.csv", params={"query_id": "other"})).status_code == 404
    assert (await service.client.get("/v1/searches/other/finds.csv")).status_code == 404


async def test_images_that_show_the_same_are_named_with_each_other(service: Service, tmp_path: Path) -> None:
    view = await kept(service)
    assert all(row["alike"] == [] for row in view["results"])
    first, second, third = (row["image"] for row in view["results"][:3])
    groups = ((third, first, "not ranked"),)
    write_records(tmp_path / "data" / "searches" / view["id"], Records(groups=groups))
    rows = (await service.client.get(f"/v1/searches/{view['id']}")).json()["results"]
    alike = {row["image"]: row["alike"] for row in rows}
    assert alike[first] == alike[third] == [first, third]
    assert alike[second] == []

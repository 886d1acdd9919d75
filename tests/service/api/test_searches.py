"""/v1/searches over the real engine: kept in folders of their own, named, found, repeated, deleted, and marked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
from fieldscope.eval.runs.marks import Marks
from fieldscope.service.viewer.addresses import query_page, run_page
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.agent.oracle import oracle_of
from tests.service.api.facts import COLLECTION, GatedLMM, Service, open_service, painted
from tests.waiting import PATIENCE

CRAB = {"query": "crab, no net", "strategy": "predicates", "top_k": 12}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as opened:
        yield opened


async def kept(service: Service, **body: Any) -> dict[str, Any]:
    """A kept search once its job is over."""
    response = await service.client.post("/v1/searches", json={**CRAB, **body})
    assert response.status_code == 202, response.text
    return await over(service, response.json())


async def over(service: Service, begun: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        async for _ in service.jobs.follow(begun["job"], 0):
            pass
    view: dict[str, Any] = (await service.client.get(f"/v1/searches/{begun['id']}")).json()
    return view


async def test_a_search_is_a_run_that_the_viewer_opens(service: Service, tmp_path: Path) -> None:
    view = await kept(service, name="  crabs  on the beach ")
    assert (view["state"], view["name"], view["collection"]) == ("done", "crabs on the beach", COLLECTION)
    direct = (await service.client.post("/v1/search", json=CRAB | {"top_n": 12, "predicates": True})).json()
    assert [row["image"] for row in view["results"]] == [result["url"] for result in direct["results"]]
    assert [row["p_match"] for row in view["results"]] == [result["p_match"] for result in direct["results"]]
    assert {part["predicate"] for part in view["results"][0]["parts"]} == {each["id"] for each in view["predicates"]}

    runs = RunList(tmp_path / "data" / "searches")
    (run,) = runs.runs()
    assert (run.problem, run.name, run.is_search) == (None, "crabs on the beach", True)
    site = Site(runs, live=True)
    page = site.render(site.page(run_page(run.key)))
    assert "not finished" not in page and "crabs on the beach" in page
    assert "is there crab?" in site.render(site.page(query_page(run.key, view["query_id"])))
    # The same query under another strategy is another run of one task, so the two can be compared.
    other = await kept(service, strategy="yes-no")
    both = site.page(f"compare/{view['id']}+{other['id']}/index.html")
    assert "crab" in site.render(both) and other["query_id"] == view["query_id"]


async def test_searches_are_named_found_repeated_and_deleted(service: Service, tmp_path: Path) -> None:
    first, other = await kept(service), await kept(service, query="snow")
    listed = (await service.client.get("/v1/searches")).json()["searches"]
    assert {each["id"] for each in listed} == {first["id"], other["id"]}
    renamed = await service.client.patch(f"/v1/searches/{first['id']}", json={"name": "my crabs"})
    assert renamed.json()["name"] == "my crabs"
    found = (await service.client.get("/v1/searches", params={"q": "crabs MY"})).json()["searches"]
    assert [each["id"] for each in found] == [first["id"]]
    again = await over(service, (await service.client.post(f"/v1/searches/{first['id']}/repeat")).json())
    assert again["id"] != first["id"] and again["name"] == "my crabs"
    assert [row["image"] for row in again["results"]] == [row["image"] for row in first["results"]]
    assert again["usage"]["cached"] == again["usage"]["calls"] > 0
    assert (await service.client.delete(f"/v1/searches/{first['id']}")).status_code == 200
    assert (await service.client.get(f"/v1/searches/{first['id']}")).status_code == 404
    assert not (tmp_path / "data" / "searches" / first["id"]).exists()
    for bad in ("..", "index.sqlite", "a" * 128):
        assert (await service.client.delete(f"/v1/searches/{bad}")).status_code == 404


async def test_looking_at_a_search_asks_nothing(tmp_path: Path) -> None:
    lmm = GatedLMM(oracle_of(painted(tmp_path / "pictures")), free=1000)
    async with open_service(tmp_path, lmm) as service:
        view = await kept(service)
        asked = len(lmm.asked)
        assert asked > 0
        await service.client.get(f"/v1/searches/{view['id']}")
        await service.client.post(
            f"/v1/searches/{view['id']}/marks", json={"marks": {view["results"][0]["image"]: "accepted"}}
        )
        assert len(lmm.asked) == asked


async def test_a_search_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """A service that ends in the middle, as after `kill -9`: the next one finishes the search, and has its marks."""
    lmm = GatedLMM(oracle_of(painted(tmp_path / "pictures")), free=4)
    async with open_service(tmp_path, lmm) as service:
        begun = (await service.client.post("/v1/searches", json=CRAB)).json()
        async with asyncio.timeout(PATIENCE):
            async for event in service.jobs.follow(begun["job"], 0):
                if event.kind == "planned":
                    break
        at_work = (await service.client.get(f"/v1/searches/{begun['id']}")).json()
        assert (at_work["state"], at_work["results"]) == ("running", [])
        marking = {"marks": {f"fieldscope://{COLLECTION}/00.png": "accepted"}}
        assert (await service.client.post(f"/v1/searches/{begun['id']}/marks", json=marking)).status_code == 409
    async with open_service(tmp_path) as service:
        view = await over(service, begun)
        assert (view["state"], len(view["results"])) == ("done", 12)


async def test_marks_are_on_the_disk_before_the_reply(service: Service, tmp_path: Path) -> None:
    view = await kept(service)
    ids = [row["image"] for row in view["results"]]
    address = f"/v1/searches/{view['id']}/marks"
    marks = dict.fromkeys(ids[:3], "accepted") | {ids[4]: "rejected", ids[5]: "unsure"}
    reply = (await service.client.post(address, json={"marks": marks, "by": "Ana"})).json()
    assert reply["marks"] == marks and reply["people"] == ["Ana"]
    assert Marks(tmp_path / "data" / "searches" / view["id"]).of(view["query_id"]) == marks
    await service.client.post(address, json={"marks": {ids[0]: None, ids[4]: "accepted"}, "by": "Ben"})
    now = (await service.client.get(f"/v1/searches/{view['id']}")).json()
    assert {row["image"]: row["mark"] for row in now["results"] if row["mark"]} == {
        **{ids[1]: "accepted", ids[2]: "accepted", ids[4]: "accepted", ids[5]: "unsure"}
    }
    assert now["marks"] == {"accepted": 3, "rejected": 0, "unsure": 1}
    assert Marks(tmp_path / "data" / "searches" / view["id"]).of(view["query_id"], by="Ana") == marks
    foreign = await service.client.post(address, json={"marks": {"fieldscope://facts/none.png": "accepted"}})
    assert foreign.status_code == 422 and foreign.json()["error"]["code"] == "unknown_image"
    assert (await service.client.post(address, json={"marks": {ids[0]: "maybe"}})).status_code == 422


async def test_marks_rank_the_other_images_and_label_the_queue(service: Service) -> None:
    view = await kept(service)
    address, ids = f"/v1/searches/{view['id']}", [row["image"] for row in view["results"]]
    assert (await service.client.get(f"{address}/refit")).json()["error"]["code"] == "no_marks"
    marks = {ids[0]: "accepted", ids[-1]: "rejected"}
    await service.client.post(f"{address}/marks", json={"marks": marks})
    refitted = (await service.client.get(f"{address}/refit")).json()
    assert {each["image"] for each in refitted["images"]} == set(ids[1:-1])
    assert "1 accepted and 1 rejected" in refitted["changes"][0]
    assert any("like the accepted ones" in sentence for sentence in refitted["changes"])

    drawn = (await service.client.post(f"{address}/queue", json={"images": 6})).json()
    assert drawn["drawn"] == 6 and {each["how"] for each in drawn["waiting"]} <= {"random", "next"}
    assert all(0 < each["probability"] <= 1 and each["image"] not in marks for each in drawn["waiting"])
    again = (await service.client.post(f"{address}/queue", json={"images": 0})).json()
    assert again == drawn
    marks = {each["image"]: "rejected" for each in drawn["waiting"]}
    await service.client.post(f"{address}/marks", json={"marks": marks})
    done = (await service.client.post(f"{address}/queue", json={"images": 0})).json()
    assert done["waiting"] == [] and done["report"][0].startswith("Above the line")


async def test_what_a_search_would_ask_is_known_before_it_starts(tmp_path: Path) -> None:
    lmm = GatedLMM(oracle_of(painted(tmp_path / "pictures")), free=0)
    async with open_service(tmp_path, lmm) as service:
        cost = (await service.client.post("/v1/searches/estimate", json=CRAB)).json()
        assert cost["candidates"] == 12 and cost["calls"] >= 12
        bounded = {**CRAB, "budget": {"max_calls": 5}}
        assert (await service.client.post("/v1/searches/estimate", json=bounded)).json()["calls"] == 5
        assert lmm.asked == []
        derived = (await service.client.post("/v1/predicates", json=CRAB)).json()
        assert {each["question"] for each in derived["predicates"]} == {"is there crab?", "is there net?"}
        assert len(lmm.asked) == 2, "no image was asked about"
        refused = await service.client.post("/v1/predicates", json={**CRAB, "strategy": "yes-no"})
        assert refused.json()["error"]["code"] == "no_predicates"


async def test_where_the_model_stammers_the_query_itself_is_asked_and_the_reply_says_so(tmp_path: Path) -> None:
    oracle = oracle_of(painted(tmp_path / "pictures"))

    async def stammer(request: LMMRequest) -> LMMResponse:
        return LMMResponse(text='{"thought": "', finish_reason="stop")

    oracle.generate = stammer  # type: ignore[method-assign]
    async with open_service(tmp_path, oracle) as service:
        reply = await service.client.post("/v1/predicates", json=CRAB)
        assert reply.status_code == 200
        derived = reply.json()
        assert [each for each in derived["predicates"] if each["kind"] != "query"] == []
        assert "the query's own words stand in" in derived["flags"][0]


async def test_the_accepted_images_go_out_as_a_table(service: Service) -> None:
    view = await kept(service, name="crabs")
    best = [row["image"] for row in view["results"][:2]]
    address = f"/v1/searches/{view['id']}"
    await service.client.post(f"{address}/marks", json={"marks": dict.fromkeys(best, "accepted")})
    table = await service.client.get(f"{address}/finds.csv")
    assert table.headers["content-type"].startswith("text/csv") and view["id"] in table.headers["content-disposition"]
    lines = table.text.strip().splitlines()
    assert len(lines) == 3 and all(image.rpartition("/")[2] in table.text for image in best)

"""/v1/jobs over the real engine: progress, partial results, cancelling, and going on after a restart."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fieldscope.service.server.api.calls import Reranked, SearchCall
from fieldscope.service.server.api.engine import Watch
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.server.api.events import Event
from fieldscope.service.server.api.jobwork import JOBS_AT_WORK, MOST_UNFINISHED
from tests.agent.oracle import oracle_of
from tests.service.api.facts import COLLECTION, GatedLMM, Service, events_of, open_service, painted
from tests.waiting import PATIENCE, turns

CRAB = {"url": "/v1/search", "body": {"query": "crab", "strategy": "yes-no", "top_k": 8}, "custom_id": "a crab"}
SNOW = {"url": "/v1/search", "body": {"query": "snow", "strategy": "yes-no", "top_k": 8}}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as opened:
        yield opened


def gated(folder: Path, free: int) -> GatedLMM:
    return GatedLMM(oracle_of(painted(folder / "pictures")), free)


async def submit(service: Service, *calls: dict[str, Any]) -> dict[str, Any]:
    response = await service.client.post("/v1/jobs", json={"calls": list(calls)})
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    return job


async def until(service: Service, job_id: str, enough: Callable[[Event], bool], after: int = 0) -> list[Event]:
    """The events up to the first that is enough."""
    seen = []
    async with asyncio.timeout(PATIENCE), aclosing(service.jobs.follow(job_id, after)) as events:
        async for happened in events:
            seen.append(happened)
            if enough(happened):
                break
    return seen


async def finished(service: Service, job_id: str) -> dict[str, Any]:
    await until(service, job_id, lambda happened: happened.kind in ("done", "cancelled"))
    view: dict[str, Any] = (await service.client.get(f"/v1/jobs/{job_id}")).json()
    return view


async def test_a_job_answers_as_the_endpoints_do(service: Service) -> None:
    documents = [f"fieldscope://{COLLECTION}/{n:02}.png" for n in range(4)]
    body = {"query": "crab", "documents": documents, "strategy": "yes-no"}
    job = await submit(service, CRAB, SNOW, {"url": "/v1/rerank", "body": body}, {"url": "/v2/rerank", "body": body})
    view = await finished(service, job["id"])
    assert (view["state"], view["calls"]) == ("done", {"total": 4, "done": 4, "failed": 0})
    assert [result["custom_id"] for result in view["results"]] == ["a crab", None, None, None]
    for call, result in zip((CRAB, SNOW), view["results"], strict=False):
        direct = (await service.client.post("/v1/search", json=call["body"])).json()
        assert result["reply"]["results"] == direct["results"]
    for result in view["results"][2:]:
        direct = (await service.client.post(result["url"], json=body)).json()
        assert result["reply"]["results"] == direct["results"]
        trace = await service.client.get(f"/v1/traces/{result['reply']['id']}")
        assert trace.status_code == 200


async def test_events_tell_of_each_call_and_its_partial_result(service: Service) -> None:
    job = await submit(service, CRAB, SNOW)
    response = await service.client.get(job["events"])
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [number for number, _, _ in events] == [*range(1, len(events) + 1)]
    assert [kind for _, kind, _ in events][:1] == ["waiting"] and events[-1][1] == "done"
    kinds = Counter((kind, data.get("call")) for _, kind, data in events)
    for call in (0, 1):
        assert kinds["verified", call] == 8
        assert kinds["result", call] == kinds["ranked", call] == 1
    reply = next(data for _, kind, data in events if kind == "result" and data["call"] == 0)
    view = (await service.client.get(f"/v1/jobs/{job['id']}")).json()
    assert {**view["results"][0]["reply"], "call": 0} == reply


async def test_whoever_was_away_gets_what_follows_and_no_more(service: Service) -> None:
    job = await submit(service, CRAB)
    await finished(service, job["id"])
    everything = events_of((await service.client.get(job["events"])).text)
    rest = await service.client.get(job["events"], headers={"Last-Event-ID": "5"})
    assert events_of(rest.text) == everything[5:]
    last = str(everything[-1][0])
    assert (await service.client.get(job["events"], headers={"Last-Event-ID": last})).status_code == 204
    for bad in ("-1", "x", "9" * 40):
        assert (await service.client.get(job["events"], headers={"Last-Event-ID": bad})).status_code == 422


async def test_a_call_that_fails_does_not_stop_the_others(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    search = service.engine.search

    async def fail_for_crabs(call: SearchCall, watch: Watch | None = None) -> Reranked:
        if call.query == "crab":
            raise ZeroDivisionError("secret")
        return await search(call, watch)

    monkeypatch.setattr(service.engine, "search", fail_for_crabs)
    job = await submit(service, CRAB, SNOW)
    view = await finished(service, job["id"])
    assert (view["state"], view["calls"]) == ("done", {"total": 2, "done": 1, "failed": 1})
    assert view["results"][0]["reply"]["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(view)
    assert len(view["results"][1]["reply"]["results"]) == 8


@pytest.mark.parametrize(
    ("calls", "status", "says"),
    [
        ([], 422, "calls"),
        ([{"url": "/v1/traces", "body": {}}], 422, "calls.0.url: '/v1/traces' is not one of"),
        ([{"body": {}}], 422, "missing field 'calls.0.url'"),
        ([CRAB, {"url": "/v1/search", "body": {"query": "crab", "top_k": 0}}], 422, "calls.1.body.top_k"),
        ([CRAB, {"url": "/v1/search", "body": {"query": "crab", "strategy": "agnet"}}], 400, "call 1: unknown"),
        ([{"url": "/v1/rerank", "body": {"query": "crab"}}], 422, "calls.0.body.documents"),
        ([{"url": "/v1/rerank", "body": {"query": "a", "documents": ["fieldscope://facts/x"]}}], 404, "document 0"),
    ],
)
async def test_a_job_with_a_call_that_can_not_be_made_is_refused(
    service: Service, calls: list[dict[str, Any]], status: int, says: str
) -> None:
    response = await service.client.post("/v1/jobs", json={"calls": calls})
    assert response.status_code == status, response.text
    assert says in response.json()["message"]
    assert (await service.client.get("/v1/jobs")).json() == {"jobs": []}


async def test_cancelling_keeps_what_was_found(tmp_path: Path) -> None:
    lmm = gated(tmp_path, free=8)
    async with open_service(tmp_path, lmm) as service:
        job = await submit(service, CRAB, SNOW)
        await until(service, job["id"], lambda happened: happened.kind == "verified")
        address = f"/v1/jobs/{job['id']}"
        response = await service.client.post(f"{address}/cancel")
        assert response.json()["state"] == "cancelled"
        lmm.gate.set()
        await turns()
        events = events_of((await service.client.get(job["events"])).text)
        assert events[-1][1] == "cancelled"
        assert sum(kind == "verified" for _, kind, _ in events) >= 1
        again = await service.client.post(f"{address}/cancel")
        assert again.json() == response.json()
        assert service.engine.admission.at_work == 0


async def test_a_job_that_is_deleted_stops_and_is_gone(tmp_path: Path) -> None:
    lmm = gated(tmp_path, free=8)
    async with open_service(tmp_path, lmm) as service:
        job, other = await submit(service, CRAB, SNOW), await submit(service, CRAB)
        await until(service, job["id"], lambda happened: happened.kind == "verified")
        following = asyncio.create_task(service.client.get(job["events"]))
        await turns()
        last = (await service.client.delete(f"/v1/jobs/{job['id']}")).json()
        assert (last["id"], last["state"]) == (job["id"], "cancelled")
        async with asyncio.timeout(PATIENCE):
            await following
        for path in ("", "/events"):
            assert (await service.client.get(f"/v1/jobs/{job['id']}{path}")).status_code == 404
        assert [each["id"] for each in (await service.client.get("/v1/jobs")).json()["jobs"]] == [other["id"]]
        lmm.gate.set()
        assert (await finished(service, other["id"]))["state"] == "done"


async def test_so_many_jobs_are_at_work_and_so_many_wait(tmp_path: Path) -> None:
    lmm = gated(tmp_path, free=0)
    async with open_service(tmp_path, lmm) as service:
        jobs = [await submit(service, CRAB) for _ in range(MOST_UNFINISHED)]

        async def states() -> Counter[str]:
            return Counter(each["state"] for each in (await service.client.get("/v1/jobs")).json()["jobs"])

        async with asyncio.timeout(PATIENCE):
            while (await states())["running"] < JOBS_AT_WORK:
                await asyncio.sleep(0)
        await turns()
        assert await states() == {"running": JOBS_AT_WORK, "waiting": MOST_UNFINISHED - JOBS_AT_WORK}
        refused = await service.client.post("/v1/jobs", json={"calls": [CRAB]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_jobs")
        assert int(refused.headers["Retry-After"]) > 0
        await service.client.delete(f"/v1/jobs/{jobs[0]['id']}")
        assert (await service.client.post("/v1/jobs", json={"calls": [CRAB]})).status_code == 202


async def test_a_busy_service_is_asked_again_later(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    search = service.engine.search
    refused: list[SearchCall] = []

    async def busy(call: SearchCall, watch: Watch | None = None) -> Reranked:
        if len(refused) < 2:
            refused.append(call)
            raise ApiError(429, "too_many_requests", "try again later", 0)
        return await search(call, watch)

    monkeypatch.setattr(service.engine, "search", busy)
    job = await submit(service, CRAB)
    view = await finished(service, job["id"])
    assert view["calls"] == {"total": 1, "done": 1, "failed": 0}
    assert len(refused) == 2


# LangGraph had not begun a task that is cancelled.
@pytest.mark.filterwarnings("ignore:coroutine .arun_with_retry. was never awaited")
async def test_a_closed_service_hands_back_and_the_next_goes_on(tmp_path: Path) -> None:
    """The first call is done, the others half done, when the service closes: the next one makes no call again, asks no
    committed question again, and tells no event twice."""
    lmm = gated(tmp_path, free=12)
    async with open_service(tmp_path, lmm, concurrency=1) as service:
        job = await submit(service, {"url": "/v1/search", "body": {"query": "net", "strategy": "clip"}}, CRAB, SNOW)
        half = await until(service, job["id"], _enough_seen())
    assert sum(happened.kind == "result" for happened in half) == 1
    committed = lmm.asked[:12]
    second = GatedLMM(oracle_of(painted(tmp_path / "pictures")), 1000)
    async with open_service(tmp_path, second, concurrency=1) as service:
        rest = await until(service, job["id"], lambda each: each.kind == "done", after=half[-1].number or 0)
        view = (await service.client.get(f"/v1/jobs/{job['id']}")).json()
        everything = service.jobs.store.events(job["id"], limit=1000)
    assert not set(second.asked) & set(committed)
    assert len(second.asked) == 16 - 12
    assert [*half, *rest] == everything
    seen = Counter(
        (each.kind, json.loads(each.data).get("call"), json.loads(each.data).get("image_id")) for each in everything
    )
    assert set(seen.values()) == {1}
    assert [kind for kind, _, _ in seen].count("resumed") == 1
    assert sum(kind == "verified" for kind, _, _ in seen) == 16
    assert view["calls"] == {"total": 3, "done": 3, "failed": 0}
    async with open_service(tmp_path / "elsewhere") as service:
        for call, result in zip((CRAB, SNOW), view["results"][1:], strict=True):
            reply = (await service.client.post("/v1/search", json=call["body"])).json()
            assert [found["image"] for found in reply["results"]] == [f["image"] for f in result["reply"]["results"]]


def _enough_seen() -> Callable[[Event], bool]:
    """Until twelve pictures were looked at, and one call is done."""
    seen: Counter[str] = Counter()

    def enough(happened: Event) -> bool:
        seen[happened.kind] += 1
        return seen["verified"] >= 12 and seen["result"] >= 1

    return enough


async def test_streams_end_when_the_service_stops(tmp_path: Path) -> None:
    async with open_service(tmp_path, gated(tmp_path, free=2)) as service:
        job = await submit(service, CRAB)
        listening = asyncio.create_task(service.client.get(job["events"]))
        await until(service, job["id"], lambda happened: happened.kind == "verified")
        service.engine.stop(0.0)
        async with asyncio.timeout(PATIENCE):
            events = events_of((await listening).text)
        assert "done" not in {kind for _, kind, _ in events}
        async with asyncio.timeout(PATIENCE):
            while (view := (await service.client.get(f"/v1/jobs/{job['id']}")).json())["state"] == "running":
                await asyncio.sleep(0)
        assert (view["state"], view["calls"]["done"]) == ("waiting", 0)


async def test_an_unknown_job_is_not_found(service: Service) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        response = await service.client.request(method, f"/v1/jobs/job-0' OR 1=1{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_job")

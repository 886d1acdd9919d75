"""POST /v1/search, over the real engine."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image as PILImage

from fieldscope.agent.trace import EVENTS
from tests.agent.oracle import facts_of
from tests.service.api.facts import COLLECTION, Service, events_of, open_service

PREFIX = f"fieldscope://{COLLECTION}/"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(tmp_path) as opened:
        yield opened


async def test_matches_come_first_and_the_reply_says_what_it_took(service: Service) -> None:
    body = {"query": "crab, snow, no net", "strategy": "predicates", "top_n": 8, "top_k": 20, "predicates": True}
    response = await service.client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    best = [facts_of(found["image"]) for found in reply["results"][:4]]
    assert all({"crab", "snow"} <= facts and "net" not in facts for facts in best)
    assert [found["rank"] for found in reply["results"]] == [*range(1, 9)]
    assert [found["url"] for found in reply["results"]] == [PREFIX + found["image"] for found in reply["results"]]
    assert reply["candidates"] == 20
    assert (reply["collection"], reply["strategy"], reply["model"]) == (COLLECTION, "predicates", "oracle")
    assert {question["question"] for question in reply["predicates"]} >= {"is there crab?", "is there net?"}
    first = reply["results"][0]
    assert {answer["predicate"] for answer in first["verdicts"]} == {each["id"] for each in reply["predicates"]}
    assert first["prior"] <= 1.0 and 1 <= first["prior_rank"] <= 20
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert response.headers["X-Fieldscope-Trace"] == reply["trace_id"]


async def test_predicates_come_only_where_they_are_asked_for(service: Service) -> None:
    reply = (await service.client.post("/v1/search", json={"query": "crab", "strategy": "yes-no"})).json()
    assert reply["predicates"] is None
    assert all(found["verdicts"] is None for found in reply["results"])
    assert len(reply["results"]) == 10


async def test_the_trace_of_a_search_is_found_and_is_the_result(service: Service) -> None:
    reply = (await service.client.post("/v1/search", json={"query": "crab", "strategy": "yes-no"})).json()
    trace = (await service.client.get(f"/v1/traces/{reply['trace_id']}")).json()
    assert trace["query_id"] == reply["trace_id"]
    assert [each["image_id"] for each in trace["ranking"]][:10] == [found["url"] for found in reply["results"]]


@pytest.mark.parametrize("given", ["03.png", f"{PREFIX}03.png"])
async def test_a_reference_of_the_collection_is_changed_and_not_found(service: Service, given: str) -> None:
    """03.png shows crab and net; with snow instead of the net, pictures with crab and snow match."""
    body = {"query": "snow, no net", "reference": given, "strategy": "agent", "top_n": 4, "explain": 2}
    response = await service.client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert "03.png" not in {found["image"] for found in reply["results"]}
    assert {"crab", "snow"} <= facts_of(reply["results"][0]["image"])
    assert sum(found["reason"] is not None for found in reply["results"]) == 2


async def test_a_reference_may_be_uploaded(service: Service) -> None:
    stream = io.BytesIO()
    PILImage.new("RGB", (8, 8), (8 * 3, 100, 200)).save(stream, "PNG")  # the same pixels as 03.png
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    body = {"query": "snow, no net", "reference": url, "strategy": "agent", "top_n": 4}
    response = await service.client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    assert {"crab", "snow"} <= facts_of(response.json()["results"][0]["image"])


async def test_a_dialogue_counts_as_a_whole(service: Service) -> None:
    rounds = [{"question": "what else?", "answer": "night"}, {"question": "and?", "answer": "no rain"}]
    body = {"query": "crab", "dialogue": rounds, "strategy": "predicates", "top_n": 1}
    (found,) = (await service.client.post("/v1/search", json=body)).json()["results"]
    assert {"crab", "night"} <= facts_of(found["image"]) and "rain" not in facts_of(found["image"])


async def test_a_budget_ends_the_work_and_the_reply_says_where(service: Service) -> None:
    body = {"query": "crab", "strategy": "yes-no", "budget": {"max_calls": 3}}
    reply = (await service.client.post("/v1/search", json=body)).json()
    assert reply["ended"] == "verify"
    assert reply["usage"]["calls"] == 3


@pytest.mark.parametrize("how", ["field", "header"])
async def test_streamed_stages_come_before_the_result(service: Service, how: str) -> None:
    body = {"query": "crab, snow", "strategy": "agent", "stream": how == "field"}
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    response = await service.client.post("/v1/search", json=body, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    kinds = [kind for _, kind, _ in events]
    assert kinds[-1] == "result" and kinds.count("result") == 1
    assert set(kinds[:-1]) <= EVENTS.keys() and "verified" in kinds
    result = events[-1][2]
    trace = (await service.client.get(f"/v1/traces/{result['trace_id']}")).json()
    assert sorted(kinds[:-1]) == sorted(event["kind"] for event in trace["trace"])
    plain = (await service.client.post("/v1/search", json={**body, "stream": False})).json()
    assert [found["image"] for found in plain["results"]] == [found["image"] for found in result["results"]]


async def test_what_fails_in_a_stream_is_its_last_event(service: Service) -> None:
    service.engine.admission.close()
    response = await service.client.post("/v1/search", json={"query": "crab", "stream": True})
    ((_, kind, data),) = events_of(response.text)
    assert (kind, data["error"]["code"]) == ("error", "shutting_down")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"query": "crab", "collection": "../facts"}, 404, "unknown_collection"),
        ({"query": "crab", "strategy": "agnet"}, 400, "unknown_strategy"),
        ({"query": "crab", "reference": "../../etc/passwd"}, 404, "no_such_image"),
        ({"query": "crab", "reference": f"{PREFIX}99.png"}, 404, "unknown_image"),
        ({"query": "crab", "reference": "data:image/png;base64,iVBORw0KGgo="}, 422, "unreadable_image"),
        ({"query": "  "}, 422, "invalid_request"),
        ({"query": "crab", "filter": {"taxon": "crab"}}, 422, "bad_filter"),
        ({"query": "crab", "reference": "03.png", "dialogue": [{"question": "a", "answer": "b"}]}, 422, None),
        ({"query": "crab " * 10_000}, 422, "text_too_long"),
        ({"query": "crab", "dialogue": [{"question": "a", "answer": "b " * 20_000}]}, 422, "text_too_long"),
    ],
)
async def test_what_can_not_be_asked_is_refused(
    service: Service, body: dict[str, object], status: int, code: str | None
) -> None:
    response = await service.client.post("/v1/search", json=body)
    assert response.status_code == status, response.text
    assert code is None or response.json()["error"]["code"] == code
    assert response.json()["message"]


async def test_a_collection_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        service.engine.collections = {**service.engine.collections, "other": service.engine.collections[COLLECTION]}
        response = await service.client.post("/v1/search", json={"query": "crab"})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "no_collection")


async def test_that_nothing_matches_is_said_with_the_part_that_fails_and_the_nearest(service: Service) -> None:
    body = {"query": "crab, snow, wolf", "strategy": "predicates", "top_k": 20}
    nothing = (await service.client.post("/v1/search", json=body)).json()["nothing"]
    assert nothing["sentences"][0].startswith("No image seems to match (best P(match) ")
    assert nothing["statistic"] < nothing["threshold"]
    assert nothing["judged"] == 20
    assert [part["question"] for part in nothing["failing"]] == ["is there wolf?"]
    assert all({"crab", "snow"} <= facts_of(near["image"]) for near in nothing["nearest"][:2])
    assert nothing["nearest"][0]["holds"] == ["is there crab?", "is there snow?"]
    assert nothing["nearest"][0]["fails"] == ["is there wolf?"]
    assert nothing["nearest"][0]["url"] == PREFIX + nothing["nearest"][0]["image"]


async def test_a_strategy_without_parts_only_says_that_nothing_matches(service: Service) -> None:
    reply = (await service.client.post("/v1/search", json={"query": "wolf", "strategy": "yes-no"})).json()
    assert len(reply["nothing"]["sentences"]) == 1
    assert reply["nothing"]["failing"] == reply["nothing"]["nearest"] == []


@pytest.mark.parametrize(("query", "strategy"), [("crab", "yes-no"), ("wolf", "clip"), ("wolf", "imagescope")])
async def test_nothing_is_null_where_something_matches_or_no_probability_is_claimed(
    service: Service, query: str, strategy: str
) -> None:
    reply = (await service.client.post("/v1/search", json={"query": query, "strategy": strategy})).json()
    assert reply["nothing"] is None


async def test_a_budget_leaves_it_open_whether_anything_matches(service: Service) -> None:
    body = {"query": "wolf", "strategy": "yes-no", "budget": {"max_calls": 3}}
    reply = (await service.client.post("/v1/search", json=body)).json()
    assert reply["ended"] == "verify" and reply["nothing"] is None


async def test_the_last_event_says_that_nothing_matches(service: Service) -> None:
    body = {"query": "wolf", "strategy": "predicates", "stream": True}
    events = events_of((await service.client.post("/v1/search", json=body)).text)
    data = {kind: said for _, kind, said in events}
    assert data["ranked"]["nothing"] is True
    assert data["result"]["nothing"]["sentences"]


async def test_a_rerank_says_that_no_document_matches_by_their_places(service: Service) -> None:
    documents = [f"{PREFIX}00.png", f"{PREFIX}03.png"]  # 03.png shows crab and net
    body = {"query": "crab, wolf", "documents": documents, "strategy": "predicates"}
    for path in ("/v1/rerank", "/v2/rerank"):
        reply = (await service.client.post(path, json=body)).json()
        assert [near["index"] for near in reply["nothing"]["nearest"]] == [1]
        assert reply["meta"]["warnings"][: len(reply["nothing"]["sentences"])] == reply["nothing"]["sentences"]
    matching = (await service.client.post("/v1/rerank", json={**body, "query": "crab"})).json()
    assert "nothing" not in matching


async def test_a_job_says_that_nothing_matches(service: Service) -> None:
    call = {"url": "/v1/search", "body": {"query": "wolf", "strategy": "yes-no"}}
    job = (await service.client.post("/v1/jobs", json={"calls": [call]})).json()
    await service.client.get(job["events"])  # until the job is over
    (told,) = (await service.client.get(f"/v1/jobs/{job['id']}")).json()["results"]
    assert told["reply"]["nothing"]["statistic"] < told["reply"]["nothing"]["threshold"]

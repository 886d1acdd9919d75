"""GET /metrics, over the whole application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.agent.trace import EVENTS
from fieldscope.agent.types import TraceEvent
from fieldscope.core.errors import FieldscopeError, LMMConnectionError
from fieldscope.service.server.api.jobstore import JobStore
from fieldscope.service.server.api.keys import KeyFile
from fieldscope.service.server.api.metrics import STAGES, Metrics, stage_seconds
from tests.agent.oracle import oracle_of
from tests.service.api.facts import COLLECTION, GatedLMM, painted, settings_of
from tests.service.api.whole import open_app
from tests.waiting import until

SEARCH = {"query": "crab, snow, no net", "strategy": "predicates", "top_k": 8}


class Read:
    """One reading of the metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all samples of that name with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"fieldscope_{name}" and labels.items() <= sample.labels.items()
        )


async def read(client: httpx.AsyncClient) -> Read:
    response = await client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return Read(response.text)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with open_app(tmp_path) as opened:
        yield opened


async def test_questions_tokens_and_cache_hits_are_those_of_the_replies(client: httpx.AsyncClient) -> None:
    cold = (await client.post("/v1/search", json=SEARCH)).json()["usage"]
    first = await read(client)
    assert cold["cached"] == 0
    assert first("lmm_calls_total", outcome="answered") == cold["calls"]
    assert first("lmm_calls_total", stage="synthesize", outcome="answered") == 1
    assert first("lmm_calls_total", stage="verify") == first("lmm_request_duration_seconds_count") - 2
    assert first("lmm_request_duration_seconds_count", outcome="ok") == cold["calls"]
    assert first("tokens_total", source="model", direction="input") == cold["prompt_tokens"]
    assert first("tokens_total", source="model", direction="output") == cold["completion_tokens"]
    assert first("cache_hits_total") == first("tokens_total", source="cache") == 0

    warm = (await client.post("/v1/search", json=SEARCH)).json()["usage"]
    second = await read(client)
    assert warm["cached"] == warm["calls"] == cold["calls"]
    assert second("cache_hits_total") == warm["cached"]
    assert second("cache_hits_total", stage="verify") == first("lmm_calls_total", stage="verify")
    assert second("lmm_request_duration_seconds_count") == cold["calls"]
    assert second("tokens_total", source="model") == cold["total_tokens"]
    assert second("tokens_total", source="cache") == warm["total_tokens"]
    assert second("reranks_total", strategy="predicates", outcome="ok") == 2
    assert second("rerank_wait_seconds_count") == 2
    assert second("stage_duration_seconds_count", stage="verify") == 2
    assert 0 < second("stage_duration_seconds_sum") < second("http_request_duration_seconds_sum", route="/v1/search")


async def test_requests_are_counted_by_the_template_of_their_route(client: httpx.AsyncClient) -> None:
    trace = (await client.post("/v1/search", json=SEARCH)).json()["trace_id"]
    for path, status in (
        (f"/v1/traces/{trace}", 200),
        ("/v1/traces/nobody", 404),
        (f"/v1/collections/{COLLECTION}/thumbnails/03.png", 200),
        ("/v1/nowhere/at-all", 404),
        ("/", 200),
        ("/no/such/page.html", 404),
        ("/static/viewer.css", 200),
    ):
        assert (await client.get(path)).status_code == status, path
    assert (await client.get("/v1/strategies", headers={"Host": "elsewhere.example"})).status_code == 403
    assert (await client.request("BREW", "/v1/search")).status_code == 405
    told = await read(client)
    assert told("http_requests_total", route="/v1/search", method="POST", status="200") == 1
    assert told("http_requests_total", route="/v1/search", method="_OTHER", status="405") == 1
    assert told("http_requests_total", route="/v1/traces/{trace_id}", status="200") == 1
    assert told("http_requests_total", route="/v1/traces/{trace_id}", status="404") == 1
    assert told("http_requests_total", route="/v1/collections/{name}/thumbnails/{image_id:path}") == 1
    assert told("http_requests_total", route="none", status="404") == 1
    assert told("http_requests_total", route="none", status="403") == 1
    assert told("http_request_duration_seconds_count") == told("http_requests_total") == 10
    labels = {value for sample in told.samples for value in sample.labels.values()}
    assert not {label for label in labels if trace in label or "nobody" in label or "03.png" in label}
    assert not labels & {"BREW", "/v1/nowhere/at-all", "/no/such/page.html"}


async def test_what_clients_write_never_becomes_a_label(client: httpx.AsyncClient) -> None:
    before = await read(client)
    for n in range(5):
        body = {"query": f"crab {n}", "documents": ["snow"], "model": f"model-{n}", "strategy": f"strategy-{n}"}
        assert (await client.post("/v1/rerank", json=body)).status_code == 400
        headers = {"X-Request-Id": f"request-{n}", "X-Fieldscope-Explain": "true"}
        picture = f"fieldscope://{COLLECTION}/0{n}.png"
        good = {"query": f"crab {n}", "documents": [picture], "model": f"model-{n}", "strategy": "clip"}
        assert (await client.post("/v1/rerank", json=good, headers=headers)).status_code == 200
    after = await read(client)
    once = {(sample.name, *sample.labels.values()) for sample in before.samples}
    new = [sample for sample in after.samples if (sample.name, *sample.labels.values()) not in once]
    assert {sample.labels["route"] for sample in new if "route" in sample.labels} == {"/v1/rerank", "/metrics"}
    assert {sample.labels["strategy"] for sample in new if "strategy" in sample.labels} == {"clip"}
    assert not any(text in after.text for text in ("model-", "strategy-", "request-", "crab", ".png"))


async def test_a_model_that_is_gone_shows(tmp_path: Path) -> None:
    gone = ScriptedLMM(lambda _: LMMConnectionError("nobody is there"))
    async with open_app(tmp_path, gone) as client:
        response = await client.post("/v1/search", json={"query": "crab", "strategy": "yes-no", "top_k": 4})
        assert response.status_code == 503
        told = await read(client)
    assert told("reranks_total", strategy="yes-no", outcome="lmm_failed") == 1
    assert told("reranks_total", outcome="ok") == 0
    assert told("lmm_calls_total", stage="verify", outcome="unknown") == 4
    assert told("lmm_request_duration_seconds_count", outcome="LMMConnectionError") == 4
    assert told("tokens_total") == 0


def test_a_rerank_that_nobody_waits_for_any_more_is_cancelled() -> None:
    metrics = Metrics("1")
    with pytest.raises(asyncio.CancelledError), metrics.reranking("agent"):
        raise asyncio.CancelledError
    assert metrics.registry.get_sample_value("fieldscope_reranks_total", {"strategy": "agent", "outcome": "cancelled"})


async def test_what_a_budget_forbids_is_not_asked(client: httpx.AsyncClient) -> None:
    body = {"query": "crab", "strategy": "yes-no", "top_k": 6, "budget": {"max_calls": 2}}
    assert (await client.post("/v1/search", json=body)).status_code == 200
    told = await read(client)
    assert told("lmm_calls_total", stage="verify", outcome="answered") == 2
    assert told("lmm_calls_total", stage="verify", outcome="not_asked") == 4


async def test_queue_calls_at_work_and_jobs_are_those_of_the_moment(tmp_path: Path) -> None:
    lmm = GatedLMM(oracle_of(painted(tmp_path / "pictures")), free=0)
    async with open_app(tmp_path, lmm, limits={"at_work": 1, "waiting": 2}) as client:
        calls = [
            asyncio.create_task(client.post("/v1/search", json={"query": words, "strategy": "yes-no", "top_k": 3}))
            for words in ("crab", "snow", "net", "rain")
        ]
        await until(lambda: len(lmm.asked) == 3)
        busy = await read(client)
        assert (busy("calls_at_work"), busy("queue_depth"), busy("lmm_requests_in_flight")) == (1, 2, 3)
        lmm.gate.set()
        lmm.free = 10_000
        assert sorted(response.status_code for response in await asyncio.gather(*calls)) == [200, 200, 200, 429]
        job = {"calls": [{"url": "/v1/search", "body": {"query": "rain", "strategy": "yes-no", "top_k": 3}}]}
        begun = (await client.post("/v1/jobs", json=job)).json()
        assert "event: done" in (await client.get(begun["events"])).text
        idle = await read(client)
    assert (idle("calls_at_work"), idle("queue_depth"), idle("lmm_requests_in_flight")) == (0, 0, 0)
    assert idle("reranks_total", outcome="too_many_requests") == 1
    assert idle("jobs", state="done") == 1
    assert {sample.labels["state"] for sample in idle.samples if sample.name == "fieldscope_jobs"} == {
        "waiting", "running", "done", "failed", "cancelled",
    }  # fmt: skip


async def test_jobs_that_cannot_be_read_hide_nothing_else(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: JobStore) -> dict[str, int]:
        raise FieldscopeError("the disk is gone")

    monkeypatch.setattr(JobStore, "counts", broken)
    told = await read(client)
    assert not [sample for sample in told.samples if sample.name == "fieldscope_jobs"]
    assert [sample for sample in told.samples if sample.name == "fieldscope_queue_depth"]


async def test_metrics_need_a_key_where_requests_do(tmp_path: Path) -> None:
    secret = KeyFile(settings_of(tmp_path).keys_file).add("watcher")
    async with open_app(tmp_path) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200
        client.headers["Authorization"] = f"Bearer {secret}"
        assert (await read(client))("http_requests_total", route="none", status="401") == 1


async def test_whoever_asks_for_openmetrics_gets_it(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.text.endswith("# EOF\n")
    assert "fieldscope_build_info{" in response.text


def test_stages_share_out_the_time_between_events() -> None:
    trace = [
        TraceEvent(kind=kind, at=at)
        for kind, at in (
            ("started", 0.0), ("synthesized", 2.0), ("retrieved", 2.5), ("planned", 3.0), ("verified", 5.0),
            ("verified", 4.0), ("planned", 5.5), ("assessed", 5.75), ("ranked", 6.0), ("news", 7.0),
        )
    ]  # fmt: skip
    assert stage_seconds(trace) == {
        "synthesize": 2.0, "retrieve": 0.5, "verify": 3.0, "assess": 0.25, "rank": 0.25, "other": 1.0,
    }  # fmt: skip
    assert stage_seconds([]) == stage_seconds(trace[:1]) == {}


def test_every_kind_of_event_belongs_to_a_stage() -> None:
    assert STAGES.keys() == EVENTS.keys()

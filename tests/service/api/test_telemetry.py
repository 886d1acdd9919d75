"""Spans, over the whole application: with the SDK's exporter in memory, and sent to a receiver on this machine."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import fieldscope.service.server.api.telemetry
from fieldscope.agent.lmm.scripted import ScriptedLMM
from fieldscope.core.errors import LMMRateLimitError
from fieldscope.service.cli.console import Terminal
from fieldscope.service.server.api.telemetry import Telemetry, open_telemetry
from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.wiring.feedback import listening
from tests.service.api.facts import settings_of
from tests.service.api.whole import open_app
from tests.waiting import PATIENCE

SEARCH = {"query": "crab, snow, no net", "strategy": "predicates", "top_k": 5}
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Spans:
    """What was exported."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(provider, settings_of(folder, **more))

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name.startswith(start)]

    def one(self, start: str) -> ReadableSpan:
        (span,) = self.named(start)
        return span


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def test_request_rerank_and_calls_are_one_trace(tmp_path: Path) -> None:
    spans = Spans(tmp_path)
    async with open_app(tmp_path, telemetry=spans.telemetry) as client:
        headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
        reply = (await client.post("/v1/search", json=SEARCH, headers=headers)).json()
    request, rerank, calls = spans.one("POST"), spans.one("invoke_agent"), spans.named("chat")
    assert {f"{span.context.trace_id:032x}" for span in spans.all() if span.context} == {TRACE_ID}
    assert f"{parent_of(request):016x}" == PARENT_ID
    assert parent_of(rerank) == id_of(request)
    assert {parent_of(call) for call in calls} == {id_of(rerank)}

    assert (request.name, request.kind) == ("POST /v1/search", SpanKind.SERVER)
    assert told(request) == {
        "http.request.method": "POST", "http.route": "/v1/search", "http.response.status_code": 200,
        "url.path": "/v1/search", "url.scheme": "http",
    }  # fmt: skip

    usage, waited = reply["usage"], told(rerank).pop("fieldscope.waited")
    assert 0 <= waited < 5
    assert (rerank.name, rerank.kind) == ("invoke_agent predicates", SpanKind.INTERNAL)
    assert told(rerank) == {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "fieldscope",
        "gen_ai.agent.name": "predicates", "gen_ai.request.model": "bundled",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"], "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "fieldscope.trace": reply["trace_id"], "fieldscope.images": 5, "fieldscope.calls": usage["calls"],
        "fieldscope.cached": 0, "fieldscope.unknown": 0, "fieldscope.waited": waited,
    }  # fmt: skip

    assert len(calls) == usage["calls"]
    assert sum(told(call)["gen_ai.usage.input_tokens"] for call in calls) == usage["prompt_tokens"]
    asked = told(calls[-1])
    assert (calls[-1].name, calls[-1].kind) == ("chat bundled", SpanKind.INTERNAL)
    assert asked.pop("gen_ai.usage.input_tokens") > 0
    assert asked == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "fieldscope", "gen_ai.request.model": "bundled",
        "gen_ai.output.type": "text", "gen_ai.request.max_tokens": 1, "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 0, "gen_ai.usage.output_tokens": 1, "gen_ai.response.finish_reasons": ("stop",),
        "fieldscope.images": 1,
    }  # fmt: skip
    assert {told(call)["gen_ai.output.type"] for call in calls} == {"json", "text"}
    assert all(span.status.status_code is StatusCode.UNSET for span in spans.all())


async def test_a_stream_belongs_to_its_request(tmp_path: Path) -> None:
    spans = Spans(tmp_path)
    async with open_app(tmp_path, telemetry=spans.telemetry) as client:
        assert "event: result" in (await client.post("/v1/search", json={**SEARCH, "stream": True})).text
    assert parent_of(spans.one("invoke_agent")) == id_of(spans.one("POST"))
    assert {parent_of(call) for call in spans.named("chat")} == {id_of(spans.one("invoke_agent"))}


async def test_no_span_holds_a_word_of_anybody(tmp_path: Path) -> None:
    spans = Spans(tmp_path)
    async with open_app(tmp_path, telemetry=spans.telemetry) as client:
        await client.post("/v1/search?secret=crab", json={**SEARCH, "explain": 2})
        await client.post("/v1/search", json={"query": "an unheard-of crab", "strategy": "crab"})
    text = "".join(span.to_json() for span in spans.all())
    assert len(spans.named("POST")) == 2
    assert "crab" not in text and "snow" not in text and ".png" not in text


async def test_an_answer_of_the_cache_is_no_call_to_the_model(tmp_path: Path) -> None:
    spans = Spans(tmp_path)
    async with open_app(tmp_path, telemetry=spans.telemetry) as client:
        await client.post("/v1/search", json=SEARCH)
        calls = len(spans.named("chat"))
        await client.post("/v1/search", json=SEARCH)
    assert len(spans.named("chat")) == calls
    cold, warm = (told(span) for span in spans.named("invoke_agent"))
    assert warm["fieldscope.calls"] == warm["fieldscope.cached"] == cold["fieldscope.calls"] == calls
    assert warm["gen_ai.usage.input_tokens"] == 0


async def test_errors_have_a_type_and_no_words(tmp_path: Path) -> None:
    busy = ScriptedLMM(lambda _: LMMRateLimitError("the crab is busy"))
    spans = Spans(tmp_path, lmm="https://lmm.example/v1", model="vl-2")
    async with open_app(tmp_path, busy, spans.telemetry) as client:
        body = {"query": "crab", "strategy": "yes-no", "top_k": 2}
        assert (await client.post("/v1/search", json=body)).status_code == 503
        assert (await client.post("/v1/search", json={})).status_code == 422
    for name, kind in (("chat vl-2", "LMMRateLimitError"), ("invoke_agent", "lmm_failed")):
        for span in spans.named(name):
            assert (told(span)["error.type"], span.status.status_code) == (kind, StatusCode.ERROR)
    failed, refused = spans.named("POST")
    assert (told(failed)["error.type"], failed.status.status_code) == ("503", StatusCode.ERROR)
    assert ("error.type" in told(refused), refused.status.status_code) == (False, StatusCode.UNSET)
    call = spans.named("chat")[0]
    assert (call.kind, told(call)["server.address"], told(call)["server.port"]) == (SpanKind.CLIENT, "lmm.example", 443)
    assert told(call)["gen_ai.provider.name"] == "openai"
    assert not any(span.events for span in spans.all())
    assert "busy" not in "".join(span.to_json() for span in spans.all())


async def test_watching_is_not_traced_and_a_job_is_nobodys_request(tmp_path: Path) -> None:
    spans = Spans(tmp_path)
    async with open_app(tmp_path, telemetry=spans.telemetry) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert not spans.all()
        begun = (await client.post("/v1/jobs", json={"calls": [{"url": "/v1/search", "body": SEARCH}]})).json()
        await client.get(begun["events"])
    assert spans.one("invoke_agent").parent is None
    assert {span.name for span in spans.named("GET")} == {"GET /v1/jobs/{job_id}/events"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {ENDPOINT: ""},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "TRUE"},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_the_variables_there_is_none(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_telemetry(settings_of(tmp_path), environ) is None
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
    ],
)
def test_what_is_not_spoken_is_said_once(
    environ: dict[str, str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(Terminal()):
        assert open_telemetry(settings_of(tmp_path), environ) is None
    said = capsys.readouterr().err
    assert said.count("no telemetry is sent") == 1
    assert named in said


@pytest.mark.usefixtures("terminal")
def test_a_missing_extra_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with listening(Terminal()):
        assert open_telemetry(settings_of(tmp_path), {ENDPOINT: "http://127.0.0.1:4318"}) is None
    assert "extra `otel`" in " ".join(capsys.readouterr().err.split())


def test_without_the_variables_nothing_is_imported_and_nothing_runs(tmp_path: Path) -> None:
    """Libraries that are there anyway import parts of the SDK of themselves, but none of them an exporter."""
    code = (
        "import sys, threading\nfrom pathlib import Path\nfrom fieldscope.service.server import app\n"
        f"app.create_app(app.ServerSettings(data=Path({str(tmp_path)!r})))\n"
        "print(threading.active_count(), 'opentelemetry.exporter' in sys.modules)"
    )
    environ = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)}
    for more, expected in ({}, "1 False"), ({ENDPOINT: "http://127.0.0.1:1"}, "2 True"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ | more, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected.split()


class Receiver:
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.headers.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            made.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        made.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        http.shutdown()


async def test_spans_reach_a_real_receiver_by_the_variables_alone(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=reef")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with open_app(tmp_path) as client:
        reply = (await client.post("/v1/search", json=SEARCH)).json()
    assert {headers["path"] for headers in receiver.headers} == {"/v1/traces"}
    assert {headers["x-tenant"] for headers in receiver.headers} == {"reef"}
    (resource,) = {str(part.resource) for request in receiver.requests for part in request.resource_spans}
    assert '"fieldscope"' in resource and '"deployment.environment.name"' in resource
    spans = [
        span
        for request in receiver.requests
        for part in request.resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]
    assert sorted({span.name for span in spans}) == ["POST /v1/search", "chat bundled", "invoke_agent predicates"]
    assert sum(span.name == "chat bundled" for span in spans) == reply["usage"]["calls"]
    assert len({span.trace_id for span in spans}) == 1


async def test_a_receiver_that_is_gone_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last spans can't go out before the service has closed."""
    closed, sent = threading.Event(), threading.Event()

    def send(self: TracerProvider) -> None:
        closed.wait(PATIENCE)
        sent.set()

    monkeypatch.setattr(fieldscope.service.server.api.telemetry, "PATIENCE", 0.1)
    monkeypatch.setattr(TracerProvider, "shutdown", send)
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    async with open_app(tmp_path) as client:
        assert (await client.get("/v1/strategies")).status_code == 200
    assert not sent.is_set()
    closed.set()


def test_the_user_names_the_service(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, receiver.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "reef-search")
    telemetry = open_telemetry(ServerSettings(), {ENDPOINT: receiver.url})
    assert telemetry is not None
    with telemetry.reranking("agent"):
        pass
    telemetry.close()
    assert '"reef-search"' in str(receiver.requests[0].resource_spans[0].resource)

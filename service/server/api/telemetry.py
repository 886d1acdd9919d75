"""OpenTelemetry: a span for each request, rerank and call to the model, if the OTEL_* variables ask for it.

Names and attributes follow the semantic conventions for HTTP servers and for GenAI agents and models. No span has a
word of a query, a prompt, an answer or a document, or an image. Without the variables OpenTelemetry is not imported.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldscope.agent.roles import ROLES, joined, model_text
from fieldscope.agent.usage import Usage
from fieldscope.service.server.api.access import CLIENT_GONE
from fieldscope.service.server.api.metrics import NO_ROUTE, method_of, route_of
from fieldscope.service.server.api.observer import error_kind
from fieldscope.service.wiring.feedback import warn

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanKind

    from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
    from fieldscope.agent.types import RerankResult
    from fieldscope.service.server.settings import ServerSettings
from fieldscope.service.wiring.settings import Settings
from fieldscope.service.workflows.compare import model_name

NAME = "fieldscope"

PATIENCE = 3.0
"""Seconds for the last spans to be sent."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = ("otlp", "console")
_PORTS = {"http": 80, "https": 443}
_SHOWN_PATH = 200
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are requested every few seconds, whose spans would hide the others."""


def open_telemetry(settings: ServerSettings, environ: Mapping[str, str]) -> Telemetry | None:
    """The telemetry that the OTEL_* variables ask for; None if they ask for none or, after a warning, if it is
    impossible.

    Spans are exported if OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) is set or OTEL_TRACES_EXPORTER names
    `otlp` or `console`, unless OTEL_SDK_DISABLED is `true`. The SDK reads the other variables: OTEL_SERVICE_NAME,
    OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_... and so on.
    """
    names = _exporters(environ)
    if not names:
        return None
    if unknown := [name for name in names if name not in _EXPORTERS]:
        warn(f"no telemetry is sent: OTEL_TRACES_EXPORTER names {unknown[0]!r}; use {' or '.join(_EXPORTERS)}")
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if "otlp" in names and protocol != "http/protobuf":
        warn(f"no telemetry is sent: the protocol {protocol!r} is not supported; set {_PROTOCOLS[1]}=http/protobuf")
        return None
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = _provider()
        for name in names:
            provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    except ImportError:
        warn("no telemetry is sent: the OTEL_* variables ask for it, but OpenTelemetry is not installed. Install "
             "Fieldscope with its extra `otel`, or set OTEL_SDK_DISABLED=true")  # fmt: skip
        return None
    return Telemetry(provider, settings)


def _exporters(environ: Mapping[str, str]) -> list[str]:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    named = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]
    if not named:
        return ["otlp"] if any(environ.get(name) for name in _ENDPOINTS) else []
    return [name for name in dict.fromkeys(named) if name != "none"]


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _provider() -> TracerProvider:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    named = Resource.create({"service.name": NAME}).merge(OTELResourceDetector().detect())
    return TracerProvider(resource=named, shutdown_on_exit=False)


class Telemetry:
    """An `Observer` that opens spans. As a context manager it sends the remaining spans at its end, and closes
    `provider`, which makes them.
    """

    def __init__(self, provider: TracerProvider, settings: ServerSettings) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(NAME)
        self.model = model_text(joined(settings.models.names(ROLES))) or ""
        models = settings.models.by_model(ROLES)
        self._call_attributes = {chosen.model or "bundled": _call_attributes(chosen) for chosen in models}
        self._only = next(iter(self._call_attributes)) if len(self._call_attributes) == 1 else None

    async def __aenter__(self) -> Telemetry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Send the remaining spans, for a few seconds at most, in case the receiver is gone."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(PATIENCE)

    @contextmanager
    def reranking(self, strategy: str) -> Iterator[None]:
        from opentelemetry.trace import SpanKind

        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": NAME,
            "gen_ai.agent.name": strategy,
            "gen_ai.request.model": self.model,
        }
        with self.span(f"invoke_agent {strategy}", SpanKind.INTERNAL, attributes):
            yield

    def waited(self, seconds: float) -> None:
        self._current().set_attribute("fieldscope.waited", seconds)

    def ranked(self, result: RerankResult) -> None:
        usage = Usage.of(result.asked)
        paid = Usage.of(question for question in result.asked if not question.cached)
        self._current().set_attributes(
            {
                "gen_ai.usage.input_tokens": paid.prompt_tokens,
                "gen_ai.usage.output_tokens": paid.completion_tokens,
                "fieldscope.trace": result.query_id,
                "fieldscope.images": len(result.ranking),
                "fieldscope.calls": usage.calls,
                "fieldscope.cached": usage.cached,
                "fieldscope.unknown": usage.unknown,
                **({"fieldscope.ended": result.ended} if result.ended else {}),
            }
        )

    @contextmanager
    def asking(self, request: LMMRequest, model: str) -> Iterator[Callable[[LMMResponse], None]]:
        from opentelemetry.trace import SpanKind

        name = self._only or model_name(model)
        attributes = {
            **(self._call_attributes.get(name) or {"gen_ai.operation.name": "chat", "gen_ai.request.model": name}),
            "gen_ai.output.type": "text" if request.json_schema is None else "json",
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.seed": request.draw,
            "fieldscope.images": len(request.images),
        }
        kind = SpanKind.CLIENT if "server.address" in attributes else SpanKind.INTERNAL
        with self.span(f"chat {name}", kind, attributes) as span:
            yield lambda response: span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": response.usage.prompt_tokens,
                    "gen_ai.usage.output_tokens": response.usage.completion_tokens,
                    "gen_ai.response.finish_reasons": [response.finish_reason],
                }
            )

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, attributes: Mapping[str, Any], context: Context | None = None
    ) -> Iterator[Span]:
        """A span around some work. It has an error's kind, not its message, which may quote a model or a client."""
        from opentelemetry.trace import StatusCode

        with self._tracer.start_as_current_span(
            name,
            context,
            kind,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", error_kind(error))
                span.set_status(StatusCode.ERROR)
                raise

    @staticmethod
    def _current() -> Span:
        from opentelemetry.trace import get_current_span

        return get_current_span()


class Traced:
    """A span around every request, except those of monitoring. Its parent is the client's span, if the client sends a
    W3C `traceparent`."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        method, status = method_of(scope), CLIENT_GONE

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        attributes = {
            "http.request.method": method,
            "url.path": scope["path"][:_SHOWN_PATH],
            "url.scheme": scope["scheme"],
        }
        parent = extract(dict(Headers(scope=scope)))
        with self._telemetry.span(method, SpanKind.SERVER, attributes, parent) as span:
            try:
                await self._app(scope, receive, sending)
            finally:
                if (route := route_of(scope)) != NO_ROUTE:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_attribute("error.type", str(status))
                    span.set_status(StatusCode.ERROR)


def _call_attributes(settings: Settings) -> dict[str, Any]:
    """What is the same in every call to the model of these settings."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai" if settings.asks_server else NAME,  # any server that speaks OpenAI's API
        "gen_ai.request.model": settings.model or "bundled",
    }
    if settings.asks_server and settings.lmm_url:
        server = httpx.URL(settings.lmm_url)
        attributes |= {"server.address": server.host, "server.port": server.port or _PORTS.get(server.scheme, 0)}
    return attributes

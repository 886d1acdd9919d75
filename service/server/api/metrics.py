"""`GET /metrics` for Prometheus. No label is ever an id, or text that a client wrote."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import Scope

from fieldscope.agent.trace_view import stage_costs
from fieldscope.agent.usage import Usage
from fieldscope.core.errors import FieldscopeError
from fieldscope.service.server.api.errors import METHODS, RESPONSES
from fieldscope.service.server.api.observer import error_kind

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMMRequest, LMMResponse
    from fieldscope.agent.types import RerankResult, TraceEvent
    from fieldscope.service.server.api.admission import Admission
    from fieldscope.service.server.api.jobstore import JobStore

OK = "ok"
NO_ROUTE = "none"
"""The route of a request that was refused before it reached one, or that has no endpoint."""

STAGES: Mapping[str, str] = {
    "started": "start",
    "synthesized": "synthesize",
    "retrieved": "retrieve",
    "scored": "score",
    "decomposed": "decompose",
    "checked": "check",
    "planned": "verify",
    "verified": "verify",
    "inspected": "inspect",
    "assessed": "assess",
    "refined": "assess",
    "paired": "compare",
    "compared": "compare",
    "ranked": "rank",
    "explained": "explain",
}
"""The stage whose work ends with a trace event of this kind."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """An `Observer` that counts, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("fieldscope_build", "The version of the service", registry=self.registry).info({"version": version})
        self._requests = self._counter("http_requests", "Requests", "route", "method", "status")
        self._request_seconds = self._histogram(
            "http_request_duration_seconds", "From a request to the end of its reply", "route", "method"
        )
        self._reranks = self._counter("reranks", "Reranks and searches", "strategy", "outcome")
        self._wait_seconds = self._histogram("rerank_wait_seconds", "Seconds that a rerank waited for its turn")
        self._stage_seconds = self._histogram(
            "stage_duration_seconds", "Seconds that a stage of a rerank took", "stage"
        )
        self._calls = self._counter("lmm_calls", "Questions to the LMM by outcome", "stage", "outcome")
        self._hits = self._counter("cache_hits", "Questions that the response cache answered", "stage")
        self._tokens = self._counter(
            "tokens", "Tokens, of calls to the model and of cached answers", "direction", "source"
        )
        self._lmm_seconds = self._histogram(
            "lmm_request_duration_seconds", "Seconds that a call to the model took", "outcome"
        )
        self._lmm_in_flight = Gauge(
            "fieldscope_lmm_requests_in_flight", "Calls to the model under way", registry=self.registry
        )

    def follow(self, admission: Admission, jobs: JobStore) -> None:
        """Include the queue and the jobs, as of the moment of reading."""
        self.registry.register(_Occupancy(admission, jobs))

    @contextmanager
    def reranking(self, strategy: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._reranks.labels(strategy, error_kind(error)).inc()
            raise
        self._reranks.labels(strategy, OK).inc()

    def waited(self, seconds: float) -> None:
        self._wait_seconds.observe(seconds)

    def ranked(self, result: RerankResult) -> None:
        for stage, seconds in stage_seconds(result.trace).items():
            self._stage_seconds.labels(stage).observe(seconds)
        for cost in stage_costs(result):
            usage = cost.usage
            if not (usage.calls or usage.not_asked):
                continue
            for outcome, count in (
                ("answered", usage.calls - usage.unknown),
                ("unknown", usage.unknown),
                ("not_asked", usage.not_asked),
            ):
                self._calls.labels(cost.stage, outcome).inc(count)
            self._hits.labels(cost.stage).inc(usage.cached)
        cached = Usage.of(question for question in result.asked if question.cached)
        self._spend("cache", cached.prompt_tokens, cached.completion_tokens)

    @contextmanager
    def asking(self, request: LMMRequest, model: str) -> Iterator[Callable[[LMMResponse], None]]:
        began, outcome = time.perf_counter(), OK
        with self._lmm_in_flight.track_inprogress():
            try:
                yield self._count_tokens
            except BaseException as error:
                outcome = error_kind(error)
                raise
            finally:
                self._lmm_seconds.labels(outcome).observe(time.perf_counter() - began)

    def replied(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request, under the template of its route."""
        route, method = route_of(scope), method_of(scope)
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route, method).observe(seconds)

    def _count_tokens(self, response: LMMResponse) -> None:
        self._spend("model", response.usage.prompt_tokens, response.usage.completion_tokens)

    def _spend(self, source: str, read: int, written: int) -> None:
        self._tokens.labels("input", source).inc(read)
        self._tokens.labels("output", source).inc(written)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"fieldscope_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(f"fieldscope_{name}", help_text, labels, buckets=_SECONDS, registry=self.registry)


def stage_seconds(trace: Iterable[TraceEvent]) -> Mapping[str, float]:
    """Seconds of each stage. Together they cover the time from a trace's first event to its last: the time between two
    events belongs to the stage of the second."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for before, after in pairwise(sorted(trace, key=lambda event: event.at)):
        seconds[STAGES.get(after.kind, "other")] += after.at - before.at
    return seconds


class _Occupancy(Collector):
    """The calls at work, the queue and the jobs, counted when the metrics are read."""

    def __init__(self, admission: Admission, jobs: JobStore) -> None:
        self._admission = admission
        self._jobs = jobs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("fieldscope_calls_at_work", "Reranks at work", self._admission.at_work)
        yield GaugeMetricFamily("fieldscope_queue_depth", "Reranks that wait for their turn", self._admission.waiting)
        jobs = GaugeMetricFamily("fieldscope_jobs", "Jobs in the data folder", labels=["state"])
        try:
            for state, count in self._jobs.counts().items():
                jobs.add_metric([state], count)
        except FieldscopeError:  # the disk fails; the other metrics matter all the more
            return
        yield jobs


def route_of(scope: Scope) -> str:
    """The template of a request's route, or `NO_ROUTE`."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))


def method_of(scope: Scope) -> str:
    """The method, or `_OTHER` for one that HTTP does not define."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


router = APIRouter(tags=["health"])

_FORMATS: dict[str, Any] = {
    kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")
}


@router.get(
    "/metrics",
    response_class=Response,
    responses={**RESPONSES, 200: {"content": _FORMATS, "description": "Prometheus' text format, or OpenMetrics."}},
    summary="Metrics for Prometheus",
)
def metrics(request: Request) -> Response:
    """Requests, latency by stage, calls to the LMM, tokens, cache hits, unknowns, the queue, jobs, and the process."""
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    recorder = cast(Metrics, request.app.state.metrics)
    return Response(encode(recorder.registry), media_type=None, headers={"Content-Type": kind})

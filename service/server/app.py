"""The application: every endpoint, and the viewer at all other addresses."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Receive, Scope, Send

from fieldscope.core.errors import ConfigError
from fieldscope.core.private import writing_privately
from fieldscope.service.server.api import (
    catalog,
    finds,
    health,
    jobs,
    metrics,
    modellist,
    predicates,
    refresh,
    rerank,
    reworded,
    search,
    searches,
    searchmarks,
    searchview,
)
from fieldscope.service.server.api.access import Access, Hangup
from fieldscope.service.server.api.errors import NOT_FOUND, add_handlers, error_response
from fieldscope.service.server.api.guard import API, Guard
from fieldscope.service.server.api.kept import searches_of
from fieldscope.service.server.api.keys import KeyFile
from fieldscope.service.server.api.opening import Prepared, open_engine
from fieldscope.service.server.api.telemetry import Telemetry, Traced, open_telemetry
from fieldscope.service.server.settings import ServerSettings

if TYPE_CHECKING:
    from fieldscope.agent.lmm.base import LMM
    from fieldscope.retrieval.encoder import Encoder

TITLE = "Fieldscope"
DESCRIPTION = """Rerank images, and texts, for a query: a large multimodal model looks at every candidate and says why.

Clients of Jina's, Cohere's and vLLM's rerankers need only this base URL. In every request a string that is a
`data:image/...` URL or `fieldscope://COLLECTION/ID` is an image. Every error is
`{"error": {"code", "message"}, "message", "detail"}`, with the same sentence in all three fields."""

TAGS = [
    {"name": "rerank", "description": "Rerank documents. Works with the clients of Jina, Cohere and vLLM."},
    {"name": "search", "description": "Retrieve from a registered collection, and rerank."},
    {"name": "searches", "description": "Searches that are kept, and marks on what they found."},
    {"name": "jobs", "description": "Many calls in the background, with progress as server-sent events."},
    {"name": "catalog", "description": "Collections, strategies, runs and traces."},
    {"name": "health", "description": "Liveness, readiness and metrics."},
]
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own telemetry would send what clients wrote."""

_ROUTERS = (
    *(
        rerank.router,
        search.router,
        searches.router,
        searchmarks.router,
        finds.router,
        predicates.router,
        jobs.router,
        catalog.router,
    ),
    *(reworded.router, refresh.router, modellist.router, health.router, metrics.router),
)
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key that `fieldscope keys add` made."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def create_app(
    settings: ServerSettings,
    lmm: LMM | None = None,
    encoder: Encoder | None = None,
    prepared: Prepared | None = None,
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The service. Its lifespan opens and closes the engine (`app.state.engine`) and the jobs (`app.state.jobs`).

    `lmm` and `encoder` replace those that the settings name, `telemetry` replaces what the OTEL_* variables ask for,
    and `prepared` was opened before. Raises `ConfigError` as `require_keys` does.
    """
    keys = require_keys(settings)
    recorder = metrics.Metrics(version("fieldscope"))
    telemetry = telemetry or open_telemetry(settings, os.environ)
    observers = (recorder, telemetry) if telemetry else (recorder,)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with writing_privately():
            async with (
                telemetry or nullcontext(),
                open_engine(settings, lmm, encoder, prepared, observers) as engine,
                jobs.open_jobs(engine) as working,
            ):
                app.state.engine, app.state.jobs = engine, working
                recorder.follow(engine.admission, working.store)
                for folder in (settings.runs_folder, *_kept_folders(settings)):
                    folder.mkdir(parents=True, exist_ok=True)
                app.router.default = _fallback(cache(partial(_viewer, settings)))
                yield

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=version("fieldscope"),
        openapi_tags=TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        routes=[route for router in _ROUTERS for route in router.routes],  # included, each would be analysed again
    )
    add_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # as FastAPI's documentation has it
    app.add_middleware(Hangup)
    app.add_middleware(
        Guard,
        keys=keys,
        public=not settings.loopback,
        max_body=settings.limits.max_body,
        max_seconds=settings.limits.max_seconds,
    )
    app.add_middleware(Access, replied=recorder.replied)
    if telemetry:
        app.add_middleware(Traced, telemetry=telemetry)
    app.state.metrics = recorder
    return app


def require_keys(settings: ServerSettings) -> KeyFile:
    """The API keys. Raises `ConfigError` where other machines reach the service and there is no key."""
    keys = KeyFile(settings.keys_file)
    if not keys.all() and not settings.loopback:
        raise ConfigError(
            f"other machines can reach {settings.host}, so the service needs an API key. Make one with "
            "`fieldscope keys add NAME`, or listen at 127.0.0.1"
        )
    return keys


def _fallback(viewer: Callable[[], ASGIApp]) -> ASGIApp:
    """Addresses without an endpoint: the viewer's pages, except below the API's paths. The viewer is made for the
    first page that somebody opens."""

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and not f"{scope['path']}/".startswith(API)
        await (viewer() if is_page else error_response(404, "not_found", NOT_FOUND))(scope, receive, send)

    return reply


def _kept_folders(settings: ServerSettings) -> tuple[Path, Path]:
    """Where the traces of calls and the kept searches are, as runs that the viewer shows."""
    return settings.data_folder / "traces", searches_of(settings).root


def _viewer(settings: ServerSettings) -> FastAPI:
    """The viewer over the runs folder, below `/searches` over kept searches, and below `/served` over what was
    served."""
    from fieldscope.service.viewer.runs.run_list import RunList
    from fieldscope.service.viewer.server import viewer_routes
    from fieldscope.service.viewer.site import Site

    store, kept = settings.models.store_path, searches_of(settings)
    traces, searched = _kept_folders(settings)
    runs = Site(RunList(settings.runs_folder, store=store), live=True, try_it=True, searches=kept)
    routes = [
        *viewer_routes(Site(RunList(traces, store=store), live=True), catalog.SERVED),
        *viewer_routes(Site(RunList(searched, store=store), live=True), searchview.VIEWED),
        *viewer_routes(runs),
    ]
    viewer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, telemetry=_NO_TELEMETRY, routes=routes)
    add_handlers(viewer)
    return viewer


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the ways to send a key, which is optional at a loopback address."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schema.setdefault("components", {})["securitySchemes"] = _SECURITY
        schema["security"] = [{}, *({name: []} for name in _SECURITY)]
        app.openapi_schema = schema
    return app.openapi_schema

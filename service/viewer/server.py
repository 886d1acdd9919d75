"""The site over HTTP: pages, styles and scripts, pictures, and the marks that people make."""

from __future__ import annotations

import mimetypes
import os
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import BaseRoute

from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.eval.runs.notes import write_notes
from fieldscope.service.viewer.addresses import INDEX, run_page
from fieldscope.service.viewer.page import NoPage, Page
from fieldscope.service.viewer.pictures import Pictures, Size
from fieldscope.service.viewer.runs.annotations import as_csv, take
from fieldscope.service.viewer.site import Site

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every response: no code from elsewhere runs, and no other site may embed a page."""

_LARGEST_FORM = 100_000  # bytes: a note of the longest kind, in which every character is three bytes and escaped
_READ = ["GET", "HEAD"]


def create_viewer(site: Site) -> FastAPI:
    """The viewer as an application. It answers to loopback host names only, which prevents DNS rebinding."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, routes=viewer_routes(site))
    app.add_middleware(LoopbackOnly)

    def failed(request: Request, error: Exception) -> Response:
        sentence = f"This page failed: unexpected {type(error).__name__}. Please report the message in the terminal."
        page = site.missing(request.url.path.lstrip("/"), sentence, status=500)
        return Response(site.render(page), page.status, HEADERS, "text/html")

    app.add_exception_handler(Exception, failed)
    return app


def viewer_routes(site: Site, prefix: str = "") -> list[BaseRoute]:
    """The site's routes. The last one matches every address below the prefix, so put other routes before these."""
    router = APIRouter(prefix=prefix, include_in_schema=False)
    pictures = Pictures(site.run_list)
    reading = threading.Lock()  # what a run list has open is shared

    def answer(page: Page, headers: dict[str, str] | None = None) -> Response:
        return Response(
            site.render(page), page.status, {**HEADERS, "Cache-Control": "no-store", **(headers or {})}, "text/html"
        )

    def found(address: str) -> Page:
        try:
            with reading:
                return site.page(address)
        except FieldscopeError as error:
            return site.missing(address, str(error))

    @router.api_route("/static/{name}", methods=_READ)
    def static(name: str) -> Response:
        path = STATIC / name
        if path.parent != STATIC or not os.path.isfile(path):  # noqa: PTH113 - Path's raises for a name that is too long
            return answer(site.missing(f"static/{name}", "there is no such file. Reload the page."))
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(path.read_bytes(), headers={**HEADERS, "Cache-Control": "no-cache"}, media_type=kind)

    @router.api_route("/{size}/{collection}/{name}.webp", methods=_READ)
    def picture(size: str, collection: str, name: str) -> Response:
        sizes: dict[str, Size] = {"thumbnails": "thumbnails", "pictures": "pictures"}
        if size not in sizes:
            return answer(site.missing(f"{size}/{collection}/{name}.webp", "there is no such image. Reload the page."))
        got = pictures.picture(sizes[size], collection, name)
        headers = {**HEADERS, "Cache-Control": "private, max-age=3600" if got.found else "no-store"}
        return Response(got.webp, 200 if got.found else 404, headers, "image/webp")

    @router.api_route("/runs/{key}/annotations.csv", methods=_READ)
    def annotations(key: str) -> Response:
        try:
            with reading:
                text = as_csv(site.run(key))
        except FieldscopeError as error:
            return answer(site.missing(f"runs/{key}/annotations.csv", str(error)))
        named = {"Content-Disposition": 'attachment; filename="annotations.csv"'}
        return Response(text, headers={**HEADERS, **named}, media_type="text/csv")

    async def taken(request: Request, address: str, write: Callable[[dict[str, str]], None], back: str) -> Response:
        """Take a form of the page at an address, and return to the element `back` on it."""
        if not site.live:
            return answer(site.missing(address, "this page takes no marks. Use fieldscope view.", status=405))
        if not _same_origin(request):
            return answer(
                site.missing(
                    address,
                    "marks are accepted only from this site's own pages. Reload the page and mark again.",
                    status=403,
                )
            )
        form = await _form(request)
        if form is None:
            return answer(site.missing(address, "this form is too large. Shorten the note.", status=413))

        def locked() -> None:
            with reading:
                write(form)

        try:
            await run_in_threadpool(locked)
        except NoPage as error:
            return answer(site.missing(address, str(error)))
        except FieldscopeError as error:
            return answer(site.missing(address, str(error), status=409))
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{request.url.path}{query}#{back}", 303, HEADERS)

    @router.post("/runs/{key}/queries/{query}/images/{file}")
    async def mark(request: Request, key: str, query: str, file: str) -> Response:
        address = f"runs/{key}/queries/{query}/images/{file}"
        if not file.endswith(".html"):
            return answer(site.missing(address, "this page takes no marks. Use fieldscope view.", status=405))

        def write(form: dict[str, str]) -> None:
            run = site.run(key)
            query_id = site.query(run, query)
            take(run, query_id, site.image(run, query_id, file.removesuffix(".html")), form)

        return await taken(request, address, write, "annotate")

    @router.post("/runs/{key}/index.html")
    async def notes(request: Request, key: str) -> Response:
        def write(form: dict[str, str]) -> None:
            if not form.keys() >= {"tags", "note"}:
                raise ConfigError("this form has no tags and no note. Go back and reload the page.")
            write_notes(site.run(key).folder, form["tags"], form["note"])

        return await taken(request, run_page(key), write, "notes")

    @router.api_route("/{address:path}", methods=_READ)
    def page(address: str) -> Response:
        return answer(found(f"{address}{INDEX}" if address.endswith("/") else address))

    return router.routes


class LoopbackOnly:
    """Refuses requests to host names that are not loopback names."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_loopback(hosts[0]):
                sentence = "The viewer answers on this machine only. Open it as http://localhost, with its port.\n"
                await PlainTextResponse(sentence, 421, HEADERS)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a Host header, with its port or without, is a name of this machine for itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _same_origin(request: Request) -> bool:
    """Whether a page of this site sent the request. Sec-Fetch-Site, which scripts can't set, decides; a browser's
    Origin is `null` for pages without referrer."""
    fetched_by = request.headers.get("sec-fetch-site")
    if fetched_by is not None:
        return fetched_by == "same-origin"
    return request.headers.get("origin") == f"{request.url.scheme}://{request.headers.get('host')}"


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a URL-encoded form, empty if the body is no form; None if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM:
            return None
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}

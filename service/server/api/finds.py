"""`/v1/searches/{id}/finds.csv` and its likes: the accepted images of a kept search, in the formats of other
programs."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter

from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import ImageSource
from fieldscope.eval.runs.marks import Marks
from fieldscope.service.exports.coco import coco_camera_traps
from fieldscope.service.exports.darwin_core import darwin_core
from fieldscope.service.exports.finds import Finds, finds_of
from fieldscope.service.server.api.collections import find_image
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import RESPONSES, ApiError, responses
from fieldscope.service.server.api.kept import URL, find_search, require_finished
from fieldscope.service.server.api.searchview import open_search, shown_name
from fieldscope.service.workflows.ranking import Ranking

SearchId = Annotated[str, PathParameter(max_length=128)]
QueryId = Annotated[str | None, Query(max_length=500, description="One of its queries. Default: the first.")]

router = APIRouter(prefix=URL, tags=["searches"])


def _file(media_type: str) -> dict[str, Any]:
    """How the OpenAPI document describes an endpoint that replies with a file."""
    content = {media_type: {"schema": {"type": "string"}}}
    return {"response_class": Response, "responses": {**RESPONSES, **responses(404, 409), 200: {"content": content}}}


@router.get("/{search_id}/finds.csv", summary="The accepted images as CSV", **_file("text/csv"))
def get_finds(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> Response:
    """With marks, reasons and every column of the metadata; all images where none is marked."""
    return _attached(_finds(engine, search_id, query_id).csv(), "text/csv", f"{search_id}.csv")


@router.get("/{search_id}/darwin-core.csv", summary="The accepted images as Darwin Core", **_file("text/csv"))
def get_darwin_core(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> Response:
    """A Simple Darwin Core table, an occurrence for each image."""
    return _attached(darwin_core(_finds(engine, search_id, query_id)), "text/csv", f"{search_id}-darwin-core.csv")


@router.get("/{search_id}/coco.json", summary="The accepted images as COCO Camera Traps", **_file("application/json"))
def get_coco(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> Response:
    """COCO Camera Traps JSON."""
    text = json.dumps(coco_camera_traps(_finds(engine, search_id, query_id)), ensure_ascii=False)
    return _attached(text, "application/json", f"{search_id}-coco.json")


@router.get("/{search_id}/page.zip", summary="The accepted images as a page", **_file("application/zip"))
async def get_page(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> Response:
    """A static page with small pictures, reasons and metadata, under 2 MB for 100 images, in an archive."""
    finds = await asyncio.to_thread(_finds, engine, search_id, query_id)
    return _attached(await asyncio.to_thread(_zipped, finds), "application/zip", f"{search_id}.zip")


def _finds(engine: Engine, search_id: str, query_id: str | None) -> Finds:
    """Raises `ApiError` for a search that is not there or not finished, and where no image is accepted."""
    folder = find_search(engine, search_id)
    require_finished(folder)
    run = open_search(folder)
    chosen = query_id or next(iter(run.digests))
    if chosen not in run.digests:
        raise ApiError(404, "unknown_query", f"search {folder.id} has no query {chosen[:64]!r}; leave query_id out")
    marks = {shown_name(image): mark for image, mark in Marks(folder.path).of(chosen).items()}
    try:
        return finds_of(_own_ranking(engine, run.result(chosen)), marks)
    except ConfigError as error:
        raise ApiError(409, "no_finds", str(error)) from error


def _own_ranking(engine: Engine, result: RerankResult) -> Ranking:
    """The ranking under its collection's own ids, with its metadata. Clients don't learn where files are."""
    place = find_image(engine.collections, result.ranking[0].image_id) if result.ranking else None
    own = {
        name: tuple(each.model_copy(update={"image_id": shown_name(each.image_id)}) for each in getattr(result, name))
        for name in ("ranking", "verdicts", "reasons", "scores")
    }
    shown = tuple(each.model_copy(update={"shown": tuple(map(shown_name, each.shown))}) for each in result.comparisons)
    renamed = result.model_copy(update=own | {"comparisons": shown})
    if place is None:
        return Ranking(renamed, engine.images)
    return Ranking(renamed, _WithoutPlaces(place[0].images), records=place[0].records)


class _WithoutPlaces:
    """The pictures of a collection, without the paths of their files."""

    def __init__(self, images: ImageSource) -> None:
        self.load, self.pixel_hash = images.load, images.pixel_hash


def _zipped(finds: Finds) -> bytes:
    from fieldscope.service.exports.page import write_page

    stream = io.BytesIO()
    with TemporaryDirectory() as name, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        folder = Path(name)
        write_page(finds, folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return stream.getvalue()


def _attached(content: str | bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})

"""The catalog: collections and their images, strategies, runs, and the traces of served calls."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from fieldscope.agent.roles import model_text
from fieldscope.agent.strategies.strategy import STAGES, Strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ImageError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import without_folders
from fieldscope.core.types import Query as AgentQuery
from fieldscope.eval.tuning.estimate import estimate
from fieldscope.service.metadata.filter import filterable
from fieldscope.service.server.api.collections import ServedCollection
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import RESPONSES, ApiError, responses
from fieldscope.service.viewer.addresses import run_page
from fieldscope.service.viewer.pictures import shown
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList as ViewedRuns

SERVED = "/served"
"""Where the application mounts the viewer of served calls."""

PAGE = 100
LARGEST_PAGE = 1000

_SAMPLE = 6
_TYPICAL = AgentQuery(id="typical", text="two red crabs on a beach at night")
_reading = threading.Lock()  # the runs that a shelf has open are shared


class CollectionView(BaseModel):
    """A collection. `sample` has the ids of a few images; `captions` says whether captions are searched, too."""

    name: str = Field(examples=["fieldnotes"])
    images: int
    searchable: bool
    captions: bool
    sample: list[str]
    filters: list[str] = Field(description="The names that a `filter` may have: columns of metadata, `date` ...")
    flags: list[str] = Field(description="Warnings that every result over them carries.")


class CollectionList(BaseModel):
    """All registered collections."""

    collections: list[CollectionView]


class ImageView(BaseModel):
    """An image: its id, the URL that every endpoint accepts for it, and the address of its thumbnail."""

    id: str
    url: str = Field(examples=["fieldscope://fieldnotes/12"])
    thumbnail: str = Field(examples=["/v1/collections/fieldnotes/thumbnails/12"])


class ImagePage(BaseModel):
    """A page of a collection's images, in the collection's order. The first page is number 1."""

    collection: str
    total: int
    page: int
    pages: int
    images: list[ImageView]


class CostView(BaseModel):
    """The expected number of calls to the model for one text query, in all and by stage; with `at_most` an upper
    bound."""

    candidates: int
    calls: int
    at_most: bool
    by_stage: dict[str, float]


class StrategyView(BaseModel):
    """A strategy. `source` is the paper that it follows; `asks` says whether it asks a model at all."""

    name: str
    default: bool
    description: str
    source: str
    stages: list[str]
    fusion: str
    asks: bool
    cost: CostView


class StrategyList(BaseModel):
    """All strategies, the default first."""

    strategies: list[StrategyView]


class RunView(BaseModel):
    """A run below the runs folder; `problem` says why it can't be read. `page` is its page in the viewer."""

    key: str
    name: str
    problem: str | None
    benchmark: str | None = None
    split: str | None = None
    strategy: str | None = None
    model: str | None = None
    queries: int = 0
    finished: bool = False
    metrics: dict[str, float | None] = {}
    page: str


class RunList(BaseModel):
    """All runs below the runs folder."""

    runs: list[RunView]


Name = Annotated[str, PathParameter(max_length=64)]
TraceId = Annotated[str, PathParameter(max_length=200, description="The `trace_id` of a reply.")]

router = APIRouter(prefix="/v1", tags=["catalog"], responses=RESPONSES)


@router.get("/collections", summary="List the collections")
def list_collections(engine: EngineOf) -> CollectionList:
    """The collections that can be searched, and whose images can be named as `fieldscope://NAME/ID`."""
    return CollectionList(collections=[_collection_view(served) for served in engine.collections.values()])


@router.get("/collections/{name}/images", responses=responses(404), summary="List a collection's images")
def list_images(
    name: Name,
    engine: EngineOf,
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    size: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Images on a page.")] = PAGE,
) -> ImagePage:
    """One page at a time; a page after the last one is empty."""
    served = engine.collection(name)
    ids = served.images.ids()
    return ImagePage(
        collection=name,
        total=len(ids),
        page=page,
        pages=-(-len(ids) // size),
        images=[
            ImageView(id=image_id, url=served.reference(image_id), thumbnail=thumbnail_address(name, image_id))
            for image_id in ids[(page - 1) * size : page * size]
        ],
    )


@router.get(
    "/collections/{name}/thumbnails/{image_id:path}",
    response_class=Response,
    responses={**responses(404), 200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}}},
    summary="An image's thumbnail",
)
def get_thumbnail(name: Name, image_id: Annotated[str, PathParameter(max_length=4096)], engine: EngineOf) -> Response:
    """At most 160 pixels on a side, as WebP."""
    served = engine.collection(name)
    if image_id not in served.ids:
        raise ApiError(
            404,
            "no_such_image",
            f"collection {name!r} has no image {image_id[:100]!r}; /v1/collections/{name}/images lists them",
        )
    try:
        webp = shown("thumbnails", _key(served), served.images, image_id)
    except ImageError as error:
        raise ApiError(404, "unreadable_image", without_folders(str(error))) from error
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(webp, media_type="image/webp", headers=headers)


@router.get("/strategies", summary="List the strategies")
def list_strategies(engine: EngineOf) -> StrategyList:
    """Each with its stages, and about how many questions it asks."""
    default = engine.strategy(None).name
    return StrategyList(strategies=[_strategy_view(strategy, default) for strategy in engine.strategies()])


@router.get("/runs", summary="List the runs")
def list_runs(engine: EngineOf) -> RunList:
    """The runs that the viewer shows, with the metrics of each finished run."""
    folder = engine.settings.runs_folder
    if not folder.is_dir():
        return RunList(runs=[])
    with _reading:
        return RunList(runs=[_run_view(run) for run in _shelf(folder).runs()])


@router.get("/traces/{trace_id}", responses=responses(404), summary="Everything that led to a ranking")
def get_trace(trace_id: TraceId, engine: EngineOf) -> RerankResult:
    """The result with synthesis, predicates, verdicts, comparisons, reasons and events, as in a run's folder."""
    return engine.traces.find(trace_id)


@router.get(
    "/traces/{trace_id}/page",
    status_code=307,
    response_class=RedirectResponse,
    responses=responses(404),
    summary="A trace's page in the viewer",
)
def get_trace_page(trace_id: TraceId, engine: EngineOf) -> RedirectResponse:
    """Redirects to the page that shows every image and every answer."""
    return RedirectResponse(f"{SERVED}/{engine.traces.page(trace_id)}", status_code=307)


def thumbnail_address(collection: str, image_id: str) -> str:
    """The address of an image's thumbnail."""
    return f"/v1/collections/{collection}/thumbnails/{quote(image_id)}"


def _key(served: ServedCollection) -> str:
    """The viewer's key of a collection, so that service and viewer share its thumbnails."""
    return fingerprint(served.images.locator())[:12]


def _collection_view(served: ServedCollection) -> CollectionView:
    ids = served.images.ids()
    return CollectionView(
        name=served.name,
        images=len(ids),
        searchable=served.library is not None,
        captions=served.library is not None and served.library.captions is not None,
        sample=list(ids[:: max(len(ids) // _SAMPLE, 1)][:_SAMPLE]),
        filters=filterable(served.records),
        flags=list(served.flags),
    )


def _strategy_view(strategy: Strategy, default: str) -> StrategyView:
    candidates = strategy.retrieve.top_k
    expected = estimate([_TYPICAL], [candidates], strategy)
    stages: list[str] = [stage for stage in STAGES if getattr(strategy, stage) is not None]
    return StrategyView(
        name=strategy.name,
        default=strategy.name == default,
        description=strategy.description,
        source=strategy.source,
        stages=["retrieve", *stages],
        fusion=strategy.fusion.method,
        asks=bool(strategy.prompts),
        cost=CostView(
            candidates=candidates,
            calls=expected.calls,
            at_most=expected.bound,
            by_stage={stage: round(spending.calls, 1) for stage, spending in expected.stages.items()},
        ),
    )


@lru_cache(maxsize=1)
def _shelf(folder: Path) -> ViewedRuns:
    return ViewedRuns(folder)


def _run_view(run: Run) -> RunView:
    configured: dict[str, Any] = {}
    if run.manifest is not None:
        configuration = run.configuration
        configured = {
            "benchmark": configuration.benchmark.name,
            "split": configuration.benchmark.split,
            "strategy": configuration.strategy.name,
            "model": model_text(configuration.lmm),
        }
    return RunView(
        key=run.key,
        name=run.name,
        problem=run.problem,
        queries=len(run.digests),
        finished=run.finished,
        metrics=(run.metrics or {}).get("metrics", {}),
        page=f"/{run_page(run.key)}",
        **configured,
    )

"""`/v1/searches`: searches that are kept, each in a folder of its own."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query as SearchQuery
from fieldscope.eval.runs.searches import LONGEST_NAME, SearchFolder, SearchRecord
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.endpoints import check
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import RESPONSES, WORK_RESPONSES, ApiError, responses
from fieldscope.service.server.api.filters import metadata_of
from fieldscope.service.server.api.jobs import JobsOf
from fieldscope.service.server.api.jobstore import JobState, NewCall
from fieldscope.service.server.api.jobwork import Jobs
from fieldscope.service.server.api.kept import (
    URL,
    KeptSearchBody,
    find_search,
    readable,
    searches_of,
    stored_body,
)
from fieldscope.service.server.api.price import PriceView
from fieldscope.service.server.api.search import prepare
from fieldscope.service.server.api.searchview import (
    SearchSummary,
    SearchView,
    summary,
    view,
)
from fieldscope.service.workflows.dry_run import Task, outlooks


class SearchList(BaseModel):
    """Kept searches, the newest first."""

    searches: list[SearchSummary]


class Renaming(BaseModel):
    """A search's new name."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(min_length=1, max_length=LONGEST_NAME, pattern=r"\S")


class EstimateView(PriceView):
    """What a search would ask of the model about its `candidates`."""

    candidates: int


SearchId = Annotated[str, PathParameter(max_length=128)]
QueryId = Annotated[str | None, Query(max_length=500, description="One of its queries. Default: the first.")]

router = APIRouter(prefix=URL, tags=["searches"])
_ONE = RESPONSES | responses(404, 409)
_BOUNDED = [Depends(require_bounded)]


@router.post("", status_code=202, responses=WORK_RESPONSES, dependencies=_BOUNDED, summary="Search, and keep it")
async def create_search(body: KeptSearchBody, engine: EngineOf, jobs: JobsOf, response: Response) -> SearchSummary:
    """The search runs as a job, through restarts of the service; follow its `events`. Its ranking is kept until it is
    deleted."""
    return await _submit(engine, jobs, body, response)


@router.get("", responses=RESPONSES, summary="List the searches")
def list_searches(
    engine: EngineOf,
    jobs: JobsOf,
    q: Annotated[str, Query(max_length=500, description="Words of a name or query.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SearchList:
    """Those of the command line are there, too, unless they were kept elsewhere with `--out`."""
    words = q.casefold().split()
    found: list[SearchSummary] = []
    for folder in searches_of(engine.settings).all():
        shown = summary(folder, _job_state(jobs, folder))
        if all(word in f"{shown.name} {shown.query}".casefold() for word in words):
            found.append(shown)
        if len(found) >= limit:
            break
    return SearchList(searches=found)


@router.post("/estimate", responses=WORK_RESPONSES, dependencies=_BOUNDED, summary="What a search would ask")
async def estimate_search(body: KeptSearchBody, engine: EngineOf) -> EstimateView:
    """Asks no model."""
    call = await prepare(engine, body)
    strategy = engine.chosen(call.options)
    images = len(engine.searchable(body.collection).ids)
    top_k = min(call.top_k or strategy.retrieve.top_k, images)
    sized = strategy.model_copy(update={"retrieve": strategy.retrieve.model_copy(update={"top_k": top_k})})
    query = SearchQuery(id="query", text=call.query, reference_image=call.query_image, dialogue=call.dialogue)
    settings, task = engine.settings, Task((query,), (images,), given=False)
    price = partial(outlooks, task, [sized], settings.models, settings.prices, call.options.budget, probe=False)
    (outlook,) = await asyncio.to_thread(price)
    return EstimateView(**PriceView.of(outlook).model_dump(), candidates=top_k)


@router.get("/{search_id}", responses=_ONE, summary="Get a search with its ranking and marks")
def get_search(search_id: SearchId, engine: EngineOf, jobs: JobsOf, query_id: QueryId = None) -> SearchView:
    """Asks no model."""
    folder = find_search(engine, search_id)
    try:
        cells = partial(metadata_of, engine.collections)
        return view(folder, _job_state(jobs, folder), query_id, _problem(jobs, folder), cells)
    except ConfigError as error:
        raise readable(error) from error
    except KeyError as error:
        raise ApiError(
            404,
            "unknown_query",
            f"search {search_id} has no query {str(query_id)[:64]!r}; leave query_id out for its first",
        ) from error


@router.patch("/{search_id}", responses=_ONE, dependencies=_BOUNDED, summary="Rename a search")
def rename_search(search_id: SearchId, body: Renaming, engine: EngineOf, jobs: JobsOf) -> SearchSummary:
    """Its id and its folder stay."""
    folder = find_search(engine, search_id)
    folder.write(folder.record.model_copy(update={"name": " ".join(body.name.split())}))
    return summary(folder, _job_state(jobs, folder))


@router.post("/{search_id}/repeat", status_code=202, responses=WORK_RESPONSES | responses(404), summary="Repeat it")
async def repeat_search(search_id: SearchId, engine: EngineOf, jobs: JobsOf, response: Response) -> SearchSummary:
    """The same request as a new search. What was asked before is answered by the response cache."""
    record = find_search(engine, search_id).record
    try:
        body = KeptSearchBody.model_validate(record.request | {"name": record.name})
    except ValidationError as error:
        sentence = "this search does not say how to repeat it; start a new one with the same words"
        raise ApiError(409, "not_repeatable", sentence) from error
    return await _submit(engine, jobs, body, response)


@router.delete("/{search_id}", responses=_ONE, summary="Delete a search with its marks")
async def delete_search(search_id: SearchId, engine: EngineOf, jobs: JobsOf) -> SearchSummary:
    """Cancels it first where it is still at work. This reply is the last view of it."""
    folder = find_search(engine, search_id)
    last = summary(folder, _job_state(jobs, folder))
    if last.job is not None and last.state in ("waiting", "running"):
        await jobs.cancel(last.job)
    await asyncio.to_thread(folder.delete)
    return last


async def _submit(engine: Engine, jobs: Jobs, body: KeptSearchBody, response: Response) -> SearchSummary:
    await check(engine, body)
    request = body.model_dump(mode="json", exclude_unset=True, exclude={"name", "stream"})
    strategy = engine.strategy(body.strategy).name
    collection = engine.searchable(body.collection).name
    request |= {"strategy": strategy, "collection": collection}
    name = " ".join((body.name or body.query).split())[:LONGEST_NAME]
    record = SearchRecord(name=name, collection=collection, request=request)
    folder = await asyncio.to_thread(searches_of(engine.settings).begin, record)
    try:
        stored = KeptSearchBody.model_validate(request)
        job = await jobs.submit([NewCall(URL, stored_body(stored, folder.id), folder.id)])
    except ApiError:
        await asyncio.to_thread(folder.delete)
        raise
    await asyncio.to_thread(folder.write, record.model_copy(update={"job": job.id}))
    response.headers["Location"] = f"{URL}/{folder.id}"
    return summary(folder, job.state)


def _job_state(jobs: Jobs, folder: SearchFolder) -> JobState | None:
    """The state of a search's job; None where it has none any more."""
    job = folder.record.job
    try:
        return jobs.store.job(job).state if job is not None else None
    except KeyError:
        return None


def _problem(jobs: Jobs, folder: SearchFolder) -> str | None:
    """Why a search failed."""
    if folder.finished or _job_state(jobs, folder) != "failed":
        return None
    (call,) = jobs.store.calls(folder.record.job or "")
    return str(json.loads(call.reply or "{}").get("error", {}).get("message", "the search failed; repeat it"))

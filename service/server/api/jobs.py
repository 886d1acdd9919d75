"""`/v1/jobs`: many calls in the background."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.endpoints import check
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import RESPONSES, WORK_RESPONSES, ApiError, responses
from fieldscope.service.server.api.events import MEDIA_TYPE, SCHEMA, stream
from fieldscope.service.server.api.jobstore import CallState, Job, JobState, JobStore, NewCall
from fieldscope.service.server.api.jobwork import Jobs
from fieldscope.service.server.api.rerank import RerankFields
from fieldscope.service.server.api.search import SearchBody

MOST_CALLS = 1000

EXAMPLES: list[Any] = [
    {
        "calls": [
            {"custom_id": "crabs", "url": "/v1/search", "body": {"query": "two red crabs on a beach"}},
            {"custom_id": "owls", "url": "/v1/search", "body": {"query": "an owl at night", "top_n": 3}},
        ]
    }
]


class _Call(BaseModel):
    """One call: the body that the endpoint `url` would get."""

    model_config = ConfigDict(extra="forbid")

    custom_id: str | None = Field(default=None, max_length=200, description="Your own name for the call.")


class CallOfSearch(_Call):
    """A search."""

    url: Literal["/v1/search"]
    body: SearchBody


class CallOfRerank(_Call):
    """A rerank."""

    url: Literal["/v1/rerank", "/v2/rerank"]
    body: RerankFields


CallBody = Annotated[CallOfSearch | CallOfRerank, Field(discriminator="url")]


class JobBody(BaseModel):
    """The calls of a job."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": EXAMPLES})

    calls: list[CallBody] = Field(min_length=1, max_length=MOST_CALLS, fail_fast=True)


class Progress(BaseModel):
    """The number of calls, of those with a reply, and of those that failed."""

    total: int
    done: int
    failed: int


class JobSummary(BaseModel):
    """A job as it stands. `events` is the address of its events."""

    id: str
    state: JobState
    created: datetime
    started: datetime | None
    ended: datetime | None
    calls: Progress
    events: str = Field(examples=["/v1/jobs/job-1f/events"])


class CallView(BaseModel):
    """A call of a job, with its reply, or `{"error": ...}` if it failed."""

    call: int = Field(description="Its number in the job, from 0.")
    custom_id: str | None
    url: str
    state: CallState
    reply: dict[str, Any] | None


class JobView(JobSummary):
    """A job with the results of its calls so far."""

    results: list[CallView]


class JobList(BaseModel):
    """The newest jobs, newest first."""

    jobs: list[JobSummary]


@asynccontextmanager
async def open_jobs(engine: Engine) -> AsyncIterator[Jobs]:
    """The jobs in the data folder of an engine, at work until it stops; unfinished ones wait for the next start. Raises
    `ConfigError` if another service uses them."""
    jobs = Jobs(engine, JobStore(engine.settings.data_folder / "jobs.sqlite"))
    engine.on_stop.append(jobs.stop)
    try:
        yield jobs
    finally:
        await jobs.close()


def jobs_of(request: Request) -> Jobs:
    """The jobs that the application's lifespan opened."""
    return cast(Jobs, request.app.state.jobs)


JobsOf = Annotated[Jobs, Depends(jobs_of)]
JobId = Annotated[str, PathParameter(max_length=200)]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    responses=WORK_RESPONSES,
    dependencies=[Depends(require_bounded)],
    summary="Create a job",
)
async def create_job(body: JobBody, engine: EngineOf, jobs: JobsOf, response: Response) -> JobSummary:
    """Every call is checked before the job is accepted. Then the job runs in the background, through restarts of the
    service, until each call has a reply or has failed. A job fails if all of its calls fail."""
    for number, call in enumerate(body.calls):
        try:
            await check(engine, call.body)
        except ApiError as error:
            raise ApiError(error.status, error.code, f"call {number}: {error}", error.retry_after) from error
    calls = [NewCall(call.url, call.body.model_dump_json(exclude_unset=True), call.custom_id) for call in body.calls]
    job = await jobs.submit(calls)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobSummary(**_summary(job))


@router.get("", responses=RESPONSES, summary="List the jobs")
def list_jobs(jobs: JobsOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JobList:
    """Jobs that are over are deleted after a week, or when there are a thousand newer ones."""
    return JobList(jobs=[JobSummary(**_summary(job)) for job in jobs.store.jobs(limit)])


@router.get("/{job_id}", responses=RESPONSES | responses(404), summary="Get a job with its results so far")
def get_job(job_id: JobId, jobs: JobsOf) -> JobView:
    """Replies are the same as those of the endpoints."""
    return _view(jobs.store, _job(jobs, job_id))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={
        **RESPONSES,
        **responses(404),
        200: {"content": {MEDIA_TYPE: {"schema": SCHEMA}}, "description": "Server-sent events."},
        204: {"description": "The job is over, and there is no later event."},
    },
    summary="Follow a job",
)
async def follow_job(
    job_id: JobId,
    jobs: JobsOf,
    last_event_id: Annotated[
        str, Header(pattern="^[0-9]{0,15}$", description="The id of the last event that you received.")
    ] = "",
) -> Response:
    """Every event of a job, with an id: `waiting`, `started`, `resumed` (after a restart), the trace events of each
    call, `result` or `failed` with its reply, and at last `done`, `failed` (no call has a reply) or `cancelled`. Events
    of a call have its number as `call`; the last event has none. With `Last-Event-ID` the stream begins after that
    event, without it at the first."""
    job = _job(jobs, job_id)
    after = int(last_event_id or 0)
    if job.over and not jobs.store.events(job_id, after, 1):
        return Response(status_code=204)
    return stream(jobs.follow(job_id, after))


@router.post("/{job_id}/cancel", responses=RESPONSES | responses(404), summary="Cancel a job")
async def cancel_job(job_id: JobId, jobs: JobsOf) -> JobView:
    """Its replies so far stay. A job that is over stays as it is."""
    return await _cancelled(jobs, job_id)


@router.delete("/{job_id}", responses=RESPONSES | responses(404), summary="Cancel a job, and delete it")
async def delete_job(job_id: JobId, jobs: JobsOf) -> JobView:
    """Deletes the job; this reply is the last view of it. The traces of its calls stay."""
    view = await _cancelled(jobs, job_id)
    jobs.store.remove(job_id)
    return view


async def _cancelled(jobs: Jobs, job_id: str) -> JobView:
    _job(jobs, job_id)
    return _view(jobs.store, await jobs.cancel(job_id))


def _job(jobs: Jobs, job_id: str) -> Job:
    try:
        return jobs.store.job(job_id)
    except KeyError as error:
        raise ApiError(
            404, "unknown_job", f"there is no job {job_id[:64]!r}; /v1/jobs lists them, and old jobs are deleted"
        ) from error


def _summary(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "created": datetime.fromtimestamp(job.created, UTC),
        "started": job.started and datetime.fromtimestamp(job.started, UTC),
        "ended": job.ended and datetime.fromtimestamp(job.ended, UTC),
        "calls": Progress(total=job.calls, done=job.done, failed=job.failed),
        "events": f"/v1/jobs/{job.id}/events",
    }


def _view(store: JobStore, job: Job) -> JobView:
    results = [
        CallView(
            call=call.number,
            custom_id=call.custom_id,
            url=call.url,
            state=call.state,
            reply=None if call.reply is None else json.loads(call.reply),
        )
        for call in store.calls(job.id)
    ]
    return JobView(**_summary(job), results=results)

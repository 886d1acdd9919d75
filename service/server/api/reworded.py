"""`/v1/runs/{key}/reworded`: a run repeated with its prompts in other words, to be compared with it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel

from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import WORK_RESPONSES, responses
from fieldscope.service.server.api.jobs import JobsOf
from fieldscope.service.server.api.jobstore import NewCall
from fieldscope.service.server.api.price import PriceView
from fieldscope.service.server.api.rewording import URL, RewordedBody, StoredRewording, key_of, opened_edit
from fieldscope.service.viewer.addresses import run_page
from fieldscope.service.workflows.prompt_edits import edit_caveat, price_edit


class RewordedPrice(PriceView):
    """What a repetition would ask. `caveat` says where the comparison with the run is not one of words alone."""

    queries: int
    caveat: str | None


class RewordedRun(BaseModel):
    """A repetition at work. `run` is the key of its run, whose `page` is there once a query is finished."""

    run: str
    job: str
    events: str
    page: str


RunKey = Annotated[str, PathParameter(max_length=500, description="The `key` of a run in /v1/runs.")]

router = APIRouter(prefix="/v1/runs/{key}/reworded", tags=["catalog"], dependencies=[Depends(require_bounded)])
_RESPONSES = WORK_RESPONSES | responses(404)


@router.post("/estimate", responses=_RESPONSES, summary="What a repetition would ask")
async def estimate_reworded(key: RunKey, body: RewordedBody, engine: EngineOf) -> RewordedPrice:
    """Asks no model."""
    opened = await asyncio.to_thread(opened_edit, engine, key, body)
    models, prices = engine.settings.models, engine.settings.prices
    outlook = await asyncio.to_thread(price_edit, opened, models, prices)
    caveat = await asyncio.to_thread(edit_caveat, opened, models)
    return RewordedPrice(**PriceView.of(outlook).model_dump(), queries=len(opened.asked), caveat=caveat)


@router.post("", status_code=202, responses=_RESPONSES, summary="Repeat a run with prompts in other words")
async def create_reworded(
    key: RunKey, body: RewordedBody, engine: EngineOf, jobs: JobsOf, response: Response
) -> RewordedRun:
    """Over the same queries, candidates and images, as a job that goes on through restarts of the service. The new run
    lies beside the others; what was asked before is answered by the response cache."""
    opened = await asyncio.to_thread(opened_edit, engine, key, body)
    stored = StoredRewording(**body.model_dump(), run=key)
    job = await jobs.submit([NewCall(URL, stored.model_dump_json(), opened.strategy.name)])
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    run = key_of(opened)
    return RewordedRun(run=run, job=job.id, events=f"/v1/jobs/{job.id}/events", page=f"/{run_page(run)}")

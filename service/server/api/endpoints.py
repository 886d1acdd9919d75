"""The endpoints that a job may call: each body is checked when the job is created, and answered later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Response

from fieldscope.service.server.api import kept, rerank, rewording, search
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.options import OptionHeaders


async def answer_call(engine: Engine, url: str, body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """The reply to a body, as the endpoint at `url` would give it, as JSON. A ranking's trace is on the disk then."""
    if url == rewording.URL:
        return await rewording.answer_reworded(engine, body, watch)
    if url == "/v1/search":
        search_body = search.SearchBody.model_validate(body)
        searched = await search.answer(engine, search_body, await search.prepare(engine, search_body), watch)
        trace_id, reply = searched.trace_id, searched.model_dump(mode="json")
    elif url == kept.URL:
        trace_id, reply = await kept.answer_kept(engine, body, watch)
    else:
        fields, version = rerank.RerankFields.model_validate(body), "2" if url == "/v2/rerank" else "1"
        ranked = await rerank.answer(engine, fields, OptionHeaders(), Response(), version, watch)
        trace_id, reply = ranked.id, ranked.model_dump(mode="json", exclude_none=True)
    await asyncio.to_thread(engine.traces.settle, trace_id)
    return reply


async def check(engine: Engine, body: search.SearchBody | rerank.RerankFields) -> None:
    """Raises `ApiError` for a body that could never be answered."""
    if isinstance(body, search.SearchBody):
        engine.chosen((await search.prepare(engine, body)).options)
    else:
        engine.chosen((await rerank.prepare(engine, body, OptionHeaders())).options)

"""What a job may call: each call's body is checked when the job comes, and answered when its turn has come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Response

from fieldscope.service.server.api import rerank, search
from fieldscope.service.server.api.documents import listed, read_inputs
from fieldscope.service.server.api.engine import Engine, Watch


class Endpoint(Protocol):
    """An endpoint whose calls can wait in a job."""

    async def answer(self, engine: Engine, body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
        """The reply, as the endpoint itself would give it, as JSON; its trace is on the disk then."""
        ...


class _Search:
    async def answer(self, engine: Engine, body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
        asked = search.SearchBody.model_validate(body)
        call = await search.prepare(engine, asked)
        said = await search.answer(engine, asked, call, watch)
        await asyncio.to_thread(engine.traces.settle, said.trace_id)
        return said.model_dump(mode="json")


@dataclass(frozen=True)
class _Rerank:
    """One of Cohere's versions; `echo` as its endpoint has it."""

    version: str
    echo: bool

    async def answer(self, engine: Engine, body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
        asked = rerank.RerankFields.model_validate(body)
        said = await rerank.answer(engine, asked, rerank.OptionHeaders(), Response(), self.version, self.echo, watch)
        await asyncio.to_thread(engine.traces.settle, said.id)
        return said.model_dump(mode="json", exclude_none=True)


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/search": _Search(), "/v1/rerank": _Rerank("1", echo=True), "/v2/rerank": _Rerank("2", echo=False),
}  # fmt: skip


async def check(engine: Engine, body: search.SearchBody | rerank.RerankFields) -> None:
    """Raises `ApiError` for a body that could never be answered."""
    if isinstance(body, search.SearchBody):
        await search.prepare(engine, body)
        return
    engine.strategy(body.strategy)
    await read_inputs(body.query, listed(body.documents), engine)

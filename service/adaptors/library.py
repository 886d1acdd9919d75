"""The registered collections as an assistant sees them: over an engine in this process, or over a running service.

Bodies and replies are those of `/v1/search` and `/v1/rerank`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from fastapi import Response

from fieldscope.agent.types import RerankResult
from fieldscope.service.adaptors.served import Service
from fieldscope.service.server.api import catalog, rerank, search
from fieldscope.service.server.api.options import OptionHeaders

if TYPE_CHECKING:
    from fieldscope.service.server.api.engine import Engine


class Library(Protocol):
    """Collections that can be searched and ranked, and never changed. Methods raise `FieldscopeError`."""

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        """Each with its `name` and its number of `images`."""
        ...

    async def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]: ...

    async def rerank(self, body: Mapping[str, Any]) -> Mapping[str, Any]: ...

    async def trace(self, trace_id: str) -> RerankResult:
        """Everything that led to a ranking."""
        ...

    async def thumbnail(self, collection: str, image_id: str) -> bytes:
        """A small picture, as WebP."""
        ...


class EngineLibrary:
    """The collections of an engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        return [view.model_dump(mode="json") for view in catalog.list_collections(self._engine).collections]

    async def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        fields = search.SearchBody.model_validate(body)
        call = await search.prepare(self._engine, fields)
        return (await search.answer(self._engine, fields, call)).model_dump(mode="json")

    async def rerank(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        fields = rerank.RerankFields.model_validate(body)
        reply = await rerank.answer(self._engine, fields, OptionHeaders(), Response(), version="2")
        return reply.model_dump(mode="json")

    async def trace(self, trace_id: str) -> RerankResult:
        return await asyncio.to_thread(self._engine.traces.find, trace_id)

    async def thumbnail(self, collection: str, image_id: str) -> bytes:
        return bytes((await asyncio.to_thread(catalog.get_thumbnail, collection, image_id, self._engine)).body)


class ServiceLibrary:
    """The collections of a running service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = (await asyncio.to_thread(self._service.get, "/v1/collections"))["collections"]
        return listed

    async def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._post("/v1/search", body)

    async def rerank(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._post("/v2/rerank", body)

    async def trace(self, trace_id: str) -> RerankResult:
        found = await asyncio.to_thread(self._service.get, f"/v1/traces/{quote(trace_id, safe='')}")
        return RerankResult.model_validate(found)

    async def thumbnail(self, collection: str, image_id: str) -> bytes:
        return await asyncio.to_thread(self._service.thumbnail, collection, image_id)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await asyncio.to_thread(self._service.post, path, body)
        return reply

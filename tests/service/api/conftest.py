"""The whole application over FieldNotes' dozen pictures, with the bundled CLIP and the truthful LMM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fieldscope.agent.lmm.base import LMM
from fieldscope.retrieval.encoder import Encoder
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.opening import prepare
from fieldscope.service.server.app import create_app
from fieldscope.service.server.settings import ServerSettings
from tests.service.conftest import bundled_clip


@dataclass(frozen=True)
class Service:
    """An application that is open, and a client of it."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.state.engine
        return engine

    async def rerank(self, **body: Any) -> httpx.Response:
        return await self.client.post("/v1/rerank", json=body)


Opened = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
def clip() -> Encoder:
    """The bundled CLIP."""
    return bundled_clip()


@pytest.fixture
def opened(clip: Encoder, tmp_path: Path) -> Opened:
    """`async with opened(lmm=..., limits=...) as service`: the settings' own models stay the bundled ones, but for an
    LMM that is given; errors that nobody foresaw reach the client as they would over a socket."""

    @asynccontextmanager
    async def open_service(lmm: LMM | None = None, **settings: Any) -> AsyncIterator[Service]:
        told = ServerSettings(data=tmp_path / "service", **settings)
        app = create_app(told, lmm, prepared=prepare(told, None if told.encoder else clip))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
        ):
            yield Service(app, client)

    return open_service


def ids(*names: object) -> list[str]:
    """Pictures of FieldNotes as documents."""
    return [f"fieldscope://fieldnotes/{name}" for name in names]

"""A service over painted pictures: the real engine, a model that tells the truth, and a first stage that knows a
little."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image as PILImage

from fieldscope.agent.lmm.base import LMM, LMMRequest, LMMResponse
from fieldscope.core.errors import LMMConnectionError
from fieldscope.retrieval.collection import FolderCollection
from fieldscope.retrieval.encoder import QueryInputs, Vectors
from fieldscope.service.server.api import (
    catalog,
    finds,
    jobs,
    modellist,
    predicates,
    refresh,
    rerank,
    reworded,
    search,
    searches,
    searchmarks,
)
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import add_handlers
from fieldscope.service.server.api.jobwork import Jobs
from fieldscope.service.server.api.opening import open_engine
from fieldscope.service.server.settings import ServerSettings
from tests.agent.oracle import FACTS, Oracle, oracle_of, paint
from tests.waiting import until

COLLECTION = "facts"


class FactsEncoder:
    """Sees in a painted picture which facts it shows, and in a query which words."""

    fingerprint = "f" * 64
    dim = len(FACTS) + 1
    uses = frozenset({"text"})

    def encode_query(self, inputs: QueryInputs) -> Vectors:
        words = set(re.findall(r"\w+", inputs.text))
        return _unit([float(fact in words) for fact in FACTS])

    def encode_images(self, images: Sequence[PILImage.Image]) -> Vectors:
        shown = [np.asarray(image)[0, 0, 0] // 8 for image in images]
        return np.stack([_unit([float(number >> bit & 1) for bit in range(len(FACTS))]) for number in shown])


def _unit(values: list[float]) -> Vectors:
    vector = np.array([*values, 0.1], dtype=np.float32)
    unit: Vectors = vector / np.linalg.norm(vector)
    return unit


class GatedLMM:
    """An oracle whose answers about pictures wait until the gate is open, but for the first `free` of them."""

    def __init__(self, oracle: Oracle, free: int) -> None:
        self.oracle = oracle
        self.gate = asyncio.Event()
        self.free = free
        self.asked: list[str] = []
        self.gone = False

    @property
    def identity(self) -> str:
        return self.oracle.identity

    async def generate(self, request: LMMRequest) -> LMMResponse:
        self.asked.append(request.key(self.identity))
        if request.images:
            self.free -= 1
            if self.free < 0:
                await self.gate.wait()
                if self.gone:
                    raise LMMConnectionError("the model is gone")
        return await self.oracle.generate(request)

    async def aclose(self) -> None:
        await self.oracle.aclose()


@dataclass(frozen=True)
class Service:
    """A service at work: its parts, and a client of it."""

    engine: Engine
    jobs: Jobs
    client: httpx.AsyncClient
    app: FastAPI


def painted(folder: Path) -> FolderCollection:
    """The pictures, painted on first use."""
    if not folder.exists():
        folder.mkdir(parents=True)
        return paint(folder)
    return FolderCollection(folder)


def settings_of(folder: Path, **more: Any) -> ServerSettings:
    return ServerSettings(
        data=folder / "data", cache_file=folder / "cache.sqlite", collections={COLLECTION: folder / "pictures"}, **more
    )


@asynccontextmanager
async def open_service(folder: Path, lmm: LMM | None = None, **more: Any) -> AsyncIterator[Service]:
    """The endpoints over everything that lies in `folder`; opened again it goes on where it ended."""
    images = painted(folder / "pictures")
    parts = (search, searches, searchmarks, reworded, predicates, jobs, catalog, modellist, rerank, finds, refresh)
    app = FastAPI(routes=[route for part in parts for route in part.router.routes])
    add_handlers(app)
    settings = settings_of(folder, **more)
    async with (
        open_engine(settings, lmm or oracle_of(images), FactsEncoder()) as engine,
        jobs.open_jobs(engine) as working,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=30) as client,
    ):
        app.state.engine, app.state.jobs = engine, working
        try:
            yield Service(engine, working, client, app)
        finally:
            if isinstance(lmm, GatedLMM):  # what is behind the gate never gets an answer
                engine.stop(0.0)
                await until(lambda: not engine.admission.at_work)
                lmm.gone = True
                lmm.gate.set()


def events_of(text: str) -> list[tuple[int | None, str, dict[str, Any]]]:
    """Number, kind and data of every event in a stream's text."""
    import json

    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((number, fields["event"], json.loads(fields["data"])))
    return found

"""The whole application over painted pictures, as `fieldscope serve` has it, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from fieldscope.agent.lmm.base import LMM
from fieldscope.service.server.api.telemetry import Telemetry
from fieldscope.service.server.app import create_app
from tests.agent.oracle import oracle_of
from tests.service.api.facts import FactsEncoder, GatedLMM, painted, settings_of


@asynccontextmanager
async def open_app(
    folder: Path,
    lmm: LMM | None = None,
    telemetry: Telemetry | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over everything that lies in `folder`; `headers` go with each request."""
    images = painted(folder / "pictures")
    app = create_app(settings_of(folder, **more), lmm or oracle_of(images), FactsEncoder(), telemetry=telemetry)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, timeout=30) as client,
    ):
        try:
            yield client
        finally:
            if isinstance(lmm, GatedLMM):  # what is behind the gate never gets an answer
                lmm.gone = True
                lmm.gate.set()

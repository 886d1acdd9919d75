"""What endpoints get from their application."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from fieldscope.service.server.api.engine import Engine


async def engine_of(request: Request) -> Engine:
    """The engine that the application's lifespan opened. Asynchronous, because FastAPI would run a plain function in a
    thread."""
    return cast(Engine, request.app.state.engine)


EngineOf = Annotated[Engine, Depends(engine_of)]

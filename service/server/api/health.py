"""Liveness and readiness."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from fieldscope.service.server.api.dependencies import EngineOf

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(default="ok", examples=["ok"])


class Readiness(BaseModel):
    """Whether the service can rerank, and for each part "ok" or a sentence that says what is missing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"ready": True, "parts": {"lmm": "ok", "clip": "ok", "collection fieldnotes": "ok"}}]
        }
    )

    ready: bool
    parts: dict[str, str]


@router.get("/healthz", summary="The process is alive")
async def healthz() -> Alive:
    """Says nothing about models. Restart the process if this fails, and only then."""
    return Alive()


@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "A part is missing."}},
    summary="The service can rerank",
)
async def readyz(engine: EngineOf, response: Response) -> Readiness:
    """Ready if the LMM answers, the indexes are loaded and the service is not shutting down."""
    parts = await engine.ready()
    ready = all(state == "ok" for state in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, parts=parts)

"""`POST /v1/collections/{name}/refresh`: a collection as its folder is now, without a restart."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import RESPONSES, responses
from fieldscope.service.server.api.refreshing import Refresh, State


class RefreshView(BaseModel):
    """A collection's last refresh, and how many images it has now."""

    collection: str
    state: State
    done: int = Field(description="Images that were read so far, of `total`.")
    total: int
    images: int = Field(description="How many images the collection has now.")
    notes: list[str] = Field(description="What was skipped, and how the metadata was joined.")
    error: str | None = Field(description="Why it failed; the collection is then as it was before.")


Name = Annotated[str, PathParameter(max_length=64)]

router = APIRouter(prefix="/v1", tags=["catalog"], responses=RESPONSES)


@router.post(
    "/collections/{name}/refresh", status_code=202, responses=responses(404, 409), summary="Refresh a collection"
)
async def start_refresh(name: Name, engine: EngineOf) -> RefreshView:
    """Encode new and changed images of the collection's folder, leave out those that are gone, and read its metadata
    again, in the background. Searches go on over the collection as it was until the new one takes its place."""
    engine.collection(name)
    return _view(name, engine.refreshing.start(name), engine)


@router.get("/collections/{name}/refresh", responses=responses(404), summary="A collection's last refresh")
async def get_refresh(name: Name, engine: EngineOf) -> RefreshView:
    """How far it is, or how it ended."""
    engine.collection(name)
    return _view(name, engine.refreshing.last(name), engine)


def _view(name: str, refresh: Refresh, engine: EngineOf) -> RefreshView:
    return RefreshView(
        collection=name,
        state=refresh.state,
        done=refresh.done,
        total=refresh.total,
        images=len(engine.collection(name).ids),
        notes=list(refresh.notes),
        error=refresh.error,
    )

"""`GET /v1/models`: what is served, in the format of OpenAI's API, which clients of compatible services read."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from fieldscope.core.validation import unknown_name
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import RESPONSES, ApiError, responses

_SHOWN = 64  # characters of an unknown name


class ModelView(BaseModel):
    """A strategy, as a model: a rerank's `model` may name it. `lmm` is the model that decides under it."""

    id: str = Field(examples=["agent"])
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="OpenAI's field; 0, because strategies have no date.")
    owned_by: str = "fieldscope"
    description: str
    default: bool
    lmm: str = Field(examples=["bundled"])
    collections: list[str] = Field(description="The collections that it can search.")


class ModelList(BaseModel):
    """All strategies, the default first."""

    object: Literal["list"] = "list"
    data: list[ModelView]


router = APIRouter(prefix="/v1", tags=["catalog"], responses=RESPONSES)


@router.get("/models", summary="List what is served, as OpenAI does")
def list_models(engine: EngineOf) -> ModelList:
    """The strategies, each with the collections that it can search."""
    return ModelList(data=_views(engine))


@router.get("/models/{name:path}", responses=responses(404), summary="One of them")
def get_model(name: Annotated[str, PathParameter(max_length=200)], engine: EngineOf) -> ModelView:
    """A strategy by its name."""
    views = {view.id: view for view in _views(engine)}
    if name not in views:
        raise ApiError(404, "unknown_model", unknown_name("model", name[:_SHOWN], views))
    return views[name]


def _views(engine: Engine) -> list[ModelView]:
    searchable = [name for name, collection in engine.collections.items() if collection.library is not None]
    strategies = engine.strategies()
    return [
        ModelView(
            id=strategy.name,
            description=strategy.description,
            default=strategy is strategies[0],
            lmm=engine.models.name(strategy),
            collections=searchable,
        )
        for strategy in strategies
    ]

"""`POST /v1/predicates`: what would be asked of each image, before any is."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from fieldscope.agent.types import Predicate
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.errors import WORK_RESPONSES
from fieldscope.service.server.api.search import SearchBody, prepare


class DerivedPredicates(BaseModel):
    """The questions, to be changed and sent back as `predicates` of a search. `flags` say what stands in for words of
    the model that can't be read."""

    strategy: str
    predicates: list[Predicate]
    flags: list[str]


router = APIRouter(prefix="/v1", tags=["search"], dependencies=[Depends(require_bounded)])


@router.post("/predicates", responses=WORK_RESPONSES, summary="Derive the predicates of a search")
async def derive_predicates(body: SearchBody, engine: EngineOf) -> DerivedPredicates:
    """The body is a search's. The model reads the query, and no image is asked about; a search of the same query finds
    these answers in the response cache."""
    call = await prepare(engine, body)
    derived = await engine.derive(call)
    strategy = engine.chosen(call.options).name
    return DerivedPredicates(strategy=strategy, predicates=list(derived.predicates), flags=list(derived.flags))

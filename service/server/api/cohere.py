"""`POST /v2/rerank`: as Cohere's second API takes it."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.rerank import RESPONSES, Headers, RerankFields, RerankReply, answer

router = APIRouter(tags=["rerank"], dependencies=[Depends(require_bounded)])


@router.post("/v2/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank, as Cohere has it")
async def rerank(asked: RerankFields, headers: Headers, engine: EngineOf, response: Response) -> RerankReply:
    """Rank documents for a query. Cohere's are strings: one that is a `data:image/` URL or `fieldscope://COLLECTION/ID`
    is a picture. Objects are taken as at `/v1/rerank`, for vLLM answers at this address, too.

    Results bring no documents along unless `return_documents` says so.
    """
    return await answer(engine, asked, headers, response, version="2", echo=False)

"""`POST /v1/rerank` and `/rerank`: as Jina's multimodal reranker takes it, vLLM, and Cohere's older clients."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.rerank import RESPONSES, Headers, RerankFields, RerankReply, answer

router = APIRouter(tags=["rerank"], dependencies=[Depends(require_bounded)])


@router.post("/v1/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank")
@router.post("/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank, at vLLM's address")
async def rerank(asked: RerankFields, headers: Headers, engine: EngineOf, response: Response) -> RerankReply:
    """Rank documents, pictures and words, for a query of words, of a picture, or of both.

    Takes the requests of Jina's multimodal reranker, of vLLM and of Cohere's first API; the reply has what each of
    their clients reads. Documents in words come back with their results, as with Jina, unless `return_documents` says
    otherwise. Fields that are not listed here are ignored.
    """
    return await answer(engine, asked, headers, response, version="1", echo=True)

"""`POST /v1/rerank`, `/v2/rerank` and `/rerank`: one request and one reply for the clients of every reranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from fieldscope.service.server.api.access import TRACE_ID
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.calls import Document, HowJudged, ImageDocument, RerankCall, Scored
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.documents import Content, DocumentObject, Given, listed, pieces, read_inputs
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import WORK_RESPONSES
from fieldscope.service.server.api.filters import metadata_of, satisfying
from fieldscope.service.server.api.nothing import NothingRelevant
from fieldscope.service.server.api.options import Headers, OptionFields, OptionHeaders, Whole, options
from fieldscope.service.server.api.promises import CUTOFF, KEPT, CutoffReply
from fieldscope.service.server.api.unlisted import unlisted_flags
from fieldscope.service.server.api.usage import TokenUsage

if TYPE_CHECKING:
    from fieldscope.service.workflows.promise import KeptImages


class RerankFields(OptionFields):
    """A rerank request."""

    model: str | None = Field(
        default=None,
        description="Any name; the reply names the model that was used. A strategy's name, as `/v1/models` lists it, "
        "chooses that strategy, unless `strategy` does.",
    )
    query: str | DocumentObject = Field(
        description="Words, or an object with `text`, `image`, both (the image, changed as the words say), or vLLM's "
        "`content`.",
        examples=["two red crabs on a beach in the rain"],
    )
    documents: Annotated[list[Given], Field(min_length=1, fail_fast=True)] | Content = Field(
        description="Strings or objects, images and texts in any mixture, or vLLM's object, each part of which is a "
        "document. A string that is a `data:image/` URL or `fieldscope://COLLECTION/ID` is an image.",
        examples=[["fieldscope://fieldnotes/1", {"image": "fieldscope://fieldnotes/2"}]],
    )
    top_n: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="How many of the best to return. Default, and 0: all."
    )
    top_k: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Voyage's name for `top_n`, which takes precedence."
    )
    rank_fields: list[str] | None = Field(
        default=None,
        description="Cohere's: the fields of documents that are objects which are judged, in this order. Default: "
        "`text`, `image` or `content`, whichever there is.",
    )
    return_documents: bool | None = Field(
        default=None, description="Whether to return documents with their results. Default: as each client expects."
    )


class ReturnedDocument(BaseModel):
    """A document of the request: `text`, `image`, or vLLM's parts."""

    text: str | None = None
    image: str | None = None
    multi_modal: list[dict[str, Any]] | None = None


class Result(BaseModel):
    """A document at its place."""

    index: int = Field(ge=0, description="The document's place in the request, from 0.")
    relevance_score: float = Field(gt=0, lt=1, description="Falls strictly along the results.")
    judged: HowJudged = Field(description="What a model judged of it: its picture, its text, or nothing.")
    document: ReturnedDocument | None = None
    p_match: float | None = Field(default=None, description="P(match), if the strategy claims a probability.")
    reason: str | None = Field(default=None, description="Why the image matches or not, in the LMM's words.")
    kept: bool | None = KEPT
    metadata: dict[str, str] | None = Field(
        default=None, description="The cells of a collection's image by column. No model saw them."
    )


class ApiVersion(BaseModel):
    version: str


class Tokens(BaseModel):
    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    """Usage in Cohere's format, and warnings, if there are any."""

    api_version: ApiVersion
    tokens: Tokens
    warnings: list[str] | None = None


class RerankReply(BaseModel):
    """The documents, best first. `model` and `strategy` are those that were used; the trace is at `/v1/traces/{id}`."""

    id: str
    model: str
    strategy: str
    results: list[Result]
    nothing: NothingRelevant | None = Field(
        default=None,
        description="Present if no image among the documents seems to match; `meta.warnings` says so, too.",
    )
    relative: bool | None = Field(
        default=None, description="With `p_match`: true if it can't be compared with that of another list of documents."
    )
    usage: TokenUsage
    meta: Meta
    cutoff: CutoffReply | None = CUTOFF


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"headers": {TRACE_ID: {"description": "The trace's id.", "schema": {"type": "string"}}}},
    **WORK_RESPONSES,
}


async def prepare(engine: Engine, fields: RerankFields, headers: OptionHeaders) -> RerankCall:
    """The call for a body. Raises `ApiError`."""
    unlisted_flags(fields.model_extra or {})
    documents = [_chosen(document, fields.rank_fields) for document in listed(fields.documents)]
    inputs = await read_inputs(fields.query, documents, engine)
    chosen = options(fields, headers)
    if chosen.strategy is None and fields.model in {strategy.name for strategy in engine.strategies()}:
        chosen = replace(chosen, strategy=fields.model)
    places = satisfying(inputs.documents, chosen.filter, engine.collections)
    left = inputs.documents if places is None else tuple(inputs.documents[place] for place in places)
    return RerankCall(
        **vars(inputs) | {"documents": left},
        places=places,
        top_n=(fields.top_k if fields.top_n is None else fields.top_n) or None,
        options=chosen,
    )


async def answer(
    engine: Engine,
    fields: RerankFields,
    headers: OptionHeaders,
    response: Response,
    version: str,
    watch: Watch | None = None,
) -> RerankReply:
    """Rerank, and reply as this version of Cohere's API does: the first returns text documents with their results."""
    call, documents = await prepare(engine, fields, headers), listed(fields.documents)
    unused = unlisted_flags(fields.model_extra or {})
    reranked = await engine.rerank(call, watch)
    result = reranked.result
    response.headers[TRACE_ID] = result.query_id
    usage, nothing = TokenUsage.of(result), NothingRelevant.of(result, call.documents, call.place)
    return RerankReply(
        id=result.query_id,
        model=reranked.model,
        strategy=result.strategy,
        results=[
            _result(
                replace(scored, index=call.place(scored.index)),
                _returned(documents[call.place(scored.index)], fields.return_documents, texts=version == "1"),
                explained=call.options.explain > 0,
                kept=_kept(reranked.kept, call.documents[scored.index]),
                metadata=metadata_of(engine.collections, call.documents[scored.index]),
            )
            for scored in reranked.order
        ],
        nothing=nothing,
        relative=True if result.relative and call.options.explain else None,
        usage=usage,
        meta=Meta(
            api_version=ApiVersion(version=version),
            tokens=Tokens(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens),
            warnings=[*(nothing.sentences if nothing else ()), *unused, *result.flags] or None,
        ),
        cutoff=CutoffReply.of(reranked.kept),
    )


def _chosen(given: Given, names: Sequence[str] | None) -> Given:
    """A document with only those of its fields that shall be judged; one with none of them has nothing to judge."""
    if not names or isinstance(given, str) or given.content:
        return given
    fields = {"text": given.text, "image": given.image, **(given.model_extra or {})}
    words = [value for name in names if name != "image" and isinstance(value := fields.get(name), str)]
    picture = given.image if "image" in names else None
    return DocumentObject(text="\n".join(words) if words or picture is None else None, image=picture)


def _kept(kept: KeptImages | None, document: Document) -> bool | None:
    """Whether a promised precision keeps a document; None where none was requested, and for what is no image."""
    return document.image_id in kept.images if kept is not None and isinstance(document, ImageDocument) else None


def _result(
    scored: Scored,
    document: ReturnedDocument | None,
    explained: bool,
    kept: bool | None,
    metadata: dict[str, str] | None,
) -> Result:
    return Result(
        index=scored.index,
        relevance_score=scored.relevance_score,
        judged=scored.judged,
        document=document,
        p_match=scored.p_match if explained else None,
        reason=scored.reason if explained else None,
        kept=kept,
        metadata=metadata,
    )


def _returned(given: Given, requested: bool | None, texts: bool) -> ReturnedDocument | None:
    """A document as the request has it. Where the request does not say, vLLM's objects are returned, and text documents
    with `texts`; images are large."""
    content = isinstance(given, DocumentObject) and bool(given.content)
    if not (requested if requested is not None else content or (texts and not pieces(given).pictures)):
        return None
    if isinstance(given, str):
        return ReturnedDocument(text=given)
    parts = [part.model_dump() for part in given.content or ()]
    return ReturnedDocument(text=given.text, image=given.image, multi_modal=parts or None)


router = APIRouter(tags=["rerank"], dependencies=[Depends(require_bounded)])


@router.post("/v1/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank")
@router.post("/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank, at vLLM's address")
async def rerank_v1(fields: RerankFields, headers: Headers, engine: EngineOf, response: Response) -> RerankReply:
    """Rerank documents, images and texts, for a query of words, of an image, or of both.

    Takes the requests of Jina's multimodal reranker, of vLLM and of Cohere's first API; the reply has what each of
    their clients reads. Text documents are returned with their results, as Jina does, unless `return_documents` says
    otherwise. Fields that are not listed here are not used, and a warning names them.
    """
    return await answer(engine, fields, headers, response, version="1")


@router.post("/v2/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank, as Cohere does")
async def rerank_v2(fields: RerankFields, headers: Headers, engine: EngineOf, response: Response) -> RerankReply:
    """Rerank documents for a query. Cohere's documents are strings: a string that is a `data:image/` URL or
    `fieldscope://COLLECTION/ID` is an image. Objects are accepted as at `/v1/rerank`, because vLLM answers at this
    address, too.

    Documents are not returned unless `return_documents` says so.
    """
    return await answer(engine, fields, headers, response, version="2")

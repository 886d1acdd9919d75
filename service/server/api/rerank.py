"""Rerank calls: the fields that every client's request may have, and the one reply that all of them can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Header, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.json_schema import SkipJsonSchema

from fieldscope.agent.budget import Budget
from fieldscope.service.server.api.access import TRACE_ID
from fieldscope.service.server.api.calls import Options, RerankCall, Reranked, Scored
from fieldscope.service.server.api.documents import Content, DocumentObject, Given, listed, pieces, read_inputs
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import WORK_RESPONSES

if TYPE_CHECKING:
    from fieldscope.service.server.api.engine import Engine, Watch

EXPLAINED = 10
"""How many of the best images `explain: true` asks the reasons of."""

_MOST_EXPLAINED = 1000

# Headers are texts; so are their schemas.
_COUNT = r"^[0-9]{1,12}$"
_SECONDS = r"^([1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])$"
_EXPLAIN = r"^(true|false|[0-9]{1,3}|1000)$"


def _whole(given: Any) -> Any:
    """To JSON 3.0 is an integer."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Whole = Annotated[int, BeforeValidator(_whole), Strict()]
"""An integer, and nothing that could be read as one."""

_Absent = SkipJsonSchema[None]  # a header has no null, only no header


class BudgetFields(BaseModel):
    """What a call may spend: calls to the LMM, tokens (read and written), seconds before the last call begins."""

    model_config = ConfigDict(strict=True, extra="forbid")

    max_calls: Annotated[Whole, Field(ge=0)] | None = None
    max_tokens: Annotated[Whole, Field(ge=0)] | None = None
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def budget(self) -> Budget:
        """The same in the agent's words."""
        return Budget(self.max_calls, self.max_tokens, self.deadline)


class OptionFields(BaseModel):
    """Fieldscope's own fields in a body."""

    model_config = ConfigDict(strict=True, extra="allow")

    strategy: str | None = Field(
        default=None, description="One of /v1/strategies; the service's own choice without.", examples=["agent"]
    )
    budget: BudgetFields | None = Field(default=None, examples=[{"max_calls": 200, "deadline": 30.0}])
    explain: Annotated[Whole, Field(ge=0, le=_MOST_EXPLAINED)] | bool = Field(
        default=0,
        description=f"Of how many of the best images to give the reasons; true: {EXPLAINED}. Adds `p_match` and "
        "`reason` to results.",
    )


class OptionHeaders(BaseModel):
    """The same in headers, for clients that can't send other fields than their own; the body's fields win."""

    x_fieldscope_strategy: Annotated[str, Field(min_length=1)] | _Absent = None
    x_fieldscope_budget_max_calls: Annotated[str, Field(pattern=_COUNT)] | _Absent = None
    x_fieldscope_budget_max_tokens: Annotated[str, Field(pattern=_COUNT)] | _Absent = None
    x_fieldscope_budget_deadline: Annotated[str, Field(pattern=_SECONDS)] | _Absent = None
    x_fieldscope_explain: Annotated[str, Field(pattern=_EXPLAIN)] | _Absent = None

    def limits(self) -> dict[str, int | float]:
        """What is said of a budget."""
        return {
            name: kind(said)
            for name, kind, said in (
                ("max_calls", int, self.x_fieldscope_budget_max_calls),
                ("max_tokens", int, self.x_fieldscope_budget_max_tokens),
                ("deadline", float, self.x_fieldscope_budget_deadline),
            )
            if said is not None
        }


Headers = Annotated[OptionHeaders, Header()]


class RerankFields(OptionFields):
    """What every rerank request has."""

    model: str | None = Field(default=None, description="Any name; the reply says what was really used.")
    query: str | DocumentObject = Field(
        description="Words, or an object with `text`, `image`, both (the picture, changed as the words say), or vLLM's "
        "`content`.",
        examples=["two red crabs on a beach in the rain"],
    )
    documents: Annotated[list[Given], Field(min_length=1, fail_fast=True)] | Content = Field(
        description="Strings or objects, pictures and words mixed as you like, or vLLM's object, of which every part "
        "is a document. A string that is a `data:image/` URL or `fieldscope://COLLECTION/ID` is a picture.",
        examples=[["fieldscope://fieldnotes/1", {"image": "fieldscope://fieldnotes/2"}]],
    )
    top_n: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="How many of the best to give back; none or 0: all."
    )
    return_documents: bool | None = Field(
        default=None, description="Whether results bring their documents along; what each client expects without."
    )


class ReturnedDocument(BaseModel):
    """A document as it was given: `text`, `image`, or vLLM's parts."""

    text: str | None = None
    image: str | None = None
    multi_modal: list[dict[str, Any]] | None = None


class Result(BaseModel):
    """A document at its place."""

    index: int = Field(ge=0, description="The document's place in the request, from 0.")
    relevance_score: float = Field(gt=0, lt=1, description="Falls strictly along the results.")
    document: ReturnedDocument | None = None
    p_match: float | None = Field(default=None, description="P(match), where the strategy claims one.")
    reason: str | None = Field(default=None, description="Why the image matches or not, in the LMM's words.")


class Usage(BaseModel):
    """Tokens of all questions, those that the cache answered among them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ApiVersion(BaseModel):
    version: str


class Tokens(BaseModel):
    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    """The same in Cohere's words, and warnings, where there are some."""

    api_version: ApiVersion
    tokens: Tokens
    warnings: list[str] | None = None


class RerankReply(BaseModel):
    """The documents, best first. `model` and `strategy` are what was really used; `id` finds the trace at
    `/v1/traces/{id}`."""

    id: str
    model: str
    strategy: str
    results: list[Result]
    usage: Usage
    meta: Meta


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"headers": {TRACE_ID: {"description": "The trace's id.", "schema": {"type": "string"}}}},
    **WORK_RESPONSES,
}


async def answer(
    engine: Engine,
    asked: RerankFields,
    headers: OptionHeaders,
    response: Response,
    version: str,
    echo: bool,
    watch: Watch | None = None,
) -> RerankReply:
    """Rerank, and reply. `echo` says whether words come back with their results where the request does not say."""
    documents = listed(asked.documents)
    inputs = await read_inputs(asked.query, documents, engine)
    call = RerankCall(
        query=inputs.query,
        documents=inputs.documents,
        images=inputs.images,
        query_image=inputs.query_image,
        top_n=asked.top_n or None,
        options=options(asked, headers),
    )
    done = await engine.rerank(call, watch)
    response.headers[TRACE_ID] = done.trace_id
    explained = call.options.explain > 0
    return RerankReply(
        id=done.trace_id,
        model=done.model,
        strategy=done.strategy,
        results=[
            _result(scored, _returned(documents[scored.index], asked.return_documents, echo), explained)
            for scored in done.order
        ],
        usage=Usage(
            prompt_tokens=done.usage.prompt_tokens,
            completion_tokens=done.usage.completion_tokens,
            total_tokens=done.usage.tokens,
        ),
        meta=_meta(done, version),
    )


def options(asked: OptionFields, headers: OptionHeaders) -> Options:
    """Fieldscope's own fields, from the body or else from headers."""
    own = asked.budget.model_dump(exclude_none=True) if asked.budget else {}
    limits: Mapping[str, Any] = headers.limits() | own
    return Options(
        strategy=asked.strategy or headers.x_fieldscope_strategy,
        budget=Budget(**limits) if limits else None,
        explain=_explained(asked, headers),
    )


def _explained(asked: OptionFields, headers: OptionHeaders) -> int:
    told: int | bool | str = asked.explain
    if "explain" not in asked.model_fields_set and headers.x_fieldscope_explain is not None:
        told = headers.x_fieldscope_explain
    if isinstance(told, str) and told.isdecimal():
        return int(told)
    if isinstance(told, bool | str):
        return EXPLAINED if told in (True, "true") else 0
    return told


def _result(scored: Scored, document: ReturnedDocument | None, explained: bool) -> Result:
    return Result(
        index=scored.index,
        relevance_score=scored.relevance_score,
        document=document,
        p_match=scored.p_match if explained else None,
        reason=scored.reason if explained else None,
    )


def _returned(given: Given, asked: bool | None, echo: bool) -> ReturnedDocument | None:
    """A document in the words that it came in. Where the request does not say, vLLM's come back, and words with `echo`:
    pictures are large."""
    content = isinstance(given, DocumentObject) and bool(given.content)
    if not (asked if asked is not None else content or (echo and not pieces(given).pictures)):
        return None
    if isinstance(given, str):
        return ReturnedDocument(text=given)
    parts = [part.model_dump() for part in given.content or ()]
    return ReturnedDocument(text=given.text, image=given.image, multi_modal=parts or None)


def _meta(done: Reranked, version: str) -> Meta:
    return Meta(
        api_version=ApiVersion(version=version),
        tokens=Tokens(input_tokens=done.usage.prompt_tokens, output_tokens=done.usage.completion_tokens),
        warnings=list(done.flags) or None,
    )

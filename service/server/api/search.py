"""POST /v1/search: what a registered collection has for a query, reranked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fieldscope.agent import usage as total
from fieldscope.agent.trace_view import verdicts_by_image
from fieldscope.agent.types import RerankResult
from fieldscope.core.types import Turn
from fieldscope.service.server.api.access import TRACE_ID
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.calls import Options, Reranked, SearchCall
from fieldscope.service.server.api.collections import ServedCollection
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.documents import DocumentObject, read_inputs
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import WORK_RESPONSES, ApiError
from fieldscope.service.server.api.events import MEDIA_TYPE, SCHEMA, Event, Feed, event, failure, stream, told
from fieldscope.service.server.api.pictures import reference
from fieldscope.service.server.api.rerank import BudgetFields, Whole

MOST_ROUNDS = 100
DEFAULT_TOP_N = 10

EXAMPLES: list[Any] = [
    {"collection": "fieldnotes", "query": "two red crabs on a beach", "top_n": 5, "explain": 3},
    {"query": "the same, at night", "reference": "12", "strategy": "agent", "budget": {"max_calls": 200}},
    {"query": "a fox", "dialogue": [{"question": "where is it?", "answer": "in the snow"}], "stream": True},
]


_NOT_BOTH: list[Any] = [
    {"properties": {"reference": {"type": "null"}}},
    {"properties": {"dialogue": {"type": "array", "maxItems": 0}}},
]


class SearchBody(BaseModel):
    """What to look for, and how."""

    model_config = ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": EXAMPLES, "anyOf": _NOT_BOTH})

    query: str = Field(
        min_length=1, pattern=r"\S", description="What the pictures should show, or how the reference shall change."
    )
    collection: str | None = Field(default=None, description="Its name. May be left out where there is one only.")
    reference: str | None = Field(
        default=None,
        min_length=1,
        description="A picture that `query` is a change to: an image id of the collection, `fieldscope://NAME/ID`, or "
        "a picture of your own as a data URL.",
    )
    dialogue: list[Turn] = Field(
        default=[], max_length=MOST_ROUNDS, fail_fast=True, description="The rounds that followed the query."
    )
    top_k: Annotated[Whole, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="How many images the first stage finds; else the strategy says."
    )
    top_n: Whole = Field(default=DEFAULT_TOP_N, ge=1, description="How many images come back.")
    strategy: str | None = Field(default=None, description="One of `/v1/strategies`.")
    budget: BudgetFields | None = None
    explain: Whole = Field(default=0, ge=0, le=100, description="Ask for the reasons of so many images.")
    predicates: bool = Field(default=False, description="Send the questions and their answers with each image.")
    stream: bool = Field(default=False, description="Send events as they happen, the reply as the last of them.")

    @model_validator(mode="after")
    def _one_kind(self) -> SearchBody:
        if self.reference is not None and self.dialogue:
            raise ValueError("a query has a reference or a dialogue, not both")
        return self


class Answer(BaseModel):
    """What the model said to one question about one image."""

    predicate: str
    state: Literal["answered", "unknown", "not_asked"]
    p_expected: float | None = Field(description="The probability of the answer that a match must give.")
    answer: str


class Found(BaseModel):
    """An image at its place. `prior` and `prior_rank` are the first stage's."""

    rank: int
    image: str = Field(description="Its id in the collection.")
    url: str = Field(description="What every endpoint takes as a picture.", examples=["fieldscope://fieldnotes/12"])
    score: float
    p_match: float | None
    prior: float
    prior_rank: int
    rank_low: int | None = Field(description="With `rank_high`: where its rank lies with a probability of 90 %.")
    rank_high: int | None
    reason: str | None = None
    verdicts: list[Answer] | None = None


class Question(BaseModel):
    """A question that was asked about the images, and the answer that a match must give."""

    id: str
    question: str
    expected: Literal["yes", "no"]
    kind: str
    words: str


class Usage(BaseModel):
    """What it cost: questions to the model, `cached` ones among them, and tokens, those of cached answers included."""

    calls: int
    cached: int
    unknown: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    seconds: float


class SearchReply(BaseModel):
    """The ranking, best first. `candidates` were ranked in all; `ended` is the stage that the budget cut short."""

    trace_id: str
    collection: str
    query: str
    model: str
    strategy: str
    results: list[Found]
    candidates: int
    predicates: list[Question] | None = None
    ended: str | None
    flags: list[str]
    usage: Usage


async def prepare(engine: Engine, body: SearchBody) -> SearchCall:
    """The call that a body means. Raises `ApiError`."""
    engine.strategy(body.strategy)
    served = _collection(engine, body.collection)
    own = body.reference is not None and body.reference in served.ids
    given = served.reference(body.reference) if own and body.reference else body.reference
    inputs = await read_inputs(DocumentObject(text=body.query, image=given), (), engine)
    said = sum(len(turn.question) + len(turn.answer) for turn in body.dialogue)
    if said > engine.limits.max_text:
        raise ApiError(
            422,
            "text_too_long",
            f"the dialogue has {said} characters, over the limit of {engine.limits.max_text}; shorten it",
        )
    return SearchCall(
        collection=served.name,
        query=inputs.query,
        images=inputs.images,
        reference=inputs.query_image,
        dialogue=tuple(body.dialogue),
        top_k=body.top_k,
        top_n=body.top_n,
        options=Options(body.strategy, body.budget.budget() if body.budget else None, body.explain),
    )


async def answer(engine: Engine, body: SearchBody, call: SearchCall, watch: Watch | None = None) -> SearchReply:
    """Search, and say what came of it."""
    return reply(body, call, await engine.search(call, watch))


def reply(body: SearchBody, call: SearchCall, reranked: Reranked) -> SearchReply:
    """A result in the words of this endpoint."""
    result = reranked.result
    reasons = {reason.image_id: reason.text for reason in result.reasons if reason.text}
    verdicts = verdicts_by_image(result) if body.predicates else {}
    prefix = reference(call.collection, "")
    results = [
        Found(
            **ranked.model_dump(include={"rank", "score", "p_match", "prior", "prior_rank", "rank_low", "rank_high"}),
            image=ranked.image_id.removeprefix(prefix),
            url=ranked.image_id,
            reason=reasons.get(ranked.image_id),
            verdicts=[
                Answer(predicate=name, state=verdict.state, p_expected=verdict.p_expected, answer=verdict.answer)
                for name, verdict in verdicts.get(ranked.image_id, {}).items()
            ]
            if body.predicates
            else None,
        )
        for ranked in result.ranking[: body.top_n]
    ]
    questions = [Question(**predicate.model_dump()) for predicate in result.predicates] if body.predicates else None
    return SearchReply(
        trace_id=reranked.trace_id,
        collection=call.collection,
        query=call.query,
        model=reranked.model,
        strategy=reranked.strategy,
        results=results,
        candidates=len(result.ranking),
        predicates=questions,
        ended=result.ended,
        flags=list(dict.fromkeys((*result.flags, *reranked.flags))),
        usage=_usage(result),
    )


def _usage(result: RerankResult) -> Usage:
    usage = total.Usage.of(result.asked)
    return Usage(
        calls=usage.calls,
        cached=usage.cached,
        unknown=usage.unknown,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.tokens,
        seconds=round(result.trace[-1].at, 3) if result.trace else 0.0,
    )


def _collection(engine: Engine, name: str | None) -> ServedCollection:
    """The collection that is meant. Raises `ApiError`."""
    named = ", ".join(sorted(engine.collections)) or "none"
    if name is None and len(engine.collections) != 1:
        raise ApiError(422, "no_collection", f"say which collection; there are {named}")
    served = engine.collections.get(name) if name is not None else next(iter(engine.collections.values()))
    if served is None:
        raise ApiError(404, "unknown_collection", f"there is no collection {(name or '')[:64]!r}; there are {named}")
    if served.library is None:
        raise ApiError(
            409, "not_searchable", f"the collection {served.name!r} can't be searched without a CLIP; serve with --clip"
        )
    return served


router = APIRouter(prefix="/v1", tags=["search"], dependencies=[Depends(require_bounded)])

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": SearchReply,
        "content": {MEDIA_TYPE: {"schema": SCHEMA}},
        "description": "The ranking; as events, where those were asked for: the trace's own, then `result` or `error`.",
    }
}


@router.post(
    "/search", response_model=SearchReply, responses={**WORK_RESPONSES, **_STREAMED}, summary="Search a collection"
)
async def search(
    body: SearchBody,
    engine: EngineOf,
    accept: Annotated[str, Header(description="`text/event-stream` asks for events.")] = "",
) -> Response:
    """Retrieve, look at each image, and rank. With `stream`, or where `Accept` is `text/event-stream`, the stages
    arrive as server-sent events while they happen; the last one is `result`, with the same reply, or `error`."""
    call = await prepare(engine, body)
    if body.stream or MEDIA_TYPE in accept:
        return _streamed(engine, body, call)
    found = await answer(engine, body, call)
    return JSONResponse(found.model_dump(mode="json"), headers={TRACE_ID: found.trace_id})


def _streamed(engine: Engine, body: SearchBody, call: SearchCall) -> StreamingResponse:
    feed = Feed()

    async def work() -> Event:
        try:
            found = await answer(engine, body, call, lambda happened: feed.put(event(happened.kind, told(happened))))
            return Event("result", found.model_dump_json())
        except Exception as error:  # noqa: BLE001 - the status is sent: what went wrong is an event
            return event("error", failure(error))

    return stream(feed.during(work))

"""`POST /v1/search`: retrieve from a registered collection, and rerank."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fieldscope.agent.trace_view import judged_images, verdicts_by_image
from fieldscope.agent.types import Predicate
from fieldscope.core.types import Turn
from fieldscope.service.server.api.access import TRACE_ID
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.calls import HowJudged, Options, Reranked, SearchCall
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.documents import DocumentObject, read_inputs
from fieldscope.service.server.api.engine import Engine, Watch
from fieldscope.service.server.api.errors import WORK_RESPONSES, ApiError
from fieldscope.service.server.api.events import MEDIA_TYPE, SCHEMA, Event, Feed, event, event_data, failure, stream
from fieldscope.service.server.api.filters import GivenFilter, metadata_of, require_satisfied, wanted_filter
from fieldscope.service.server.api.nothing import NothingFound
from fieldscope.service.server.api.options import INSTRUCTION, BudgetFields, Whole
from fieldscope.service.server.api.pictures import reference as image_reference
from fieldscope.service.server.api.promises import CONFIDENT, CUTOFF, KEPT, PRECISION, CutoffReply, Wanted
from fieldscope.service.server.api.questions import GivenPredicates, fixed_predicates
from fieldscope.service.server.api.unlisted import unlisted_flags
from fieldscope.service.server.api.usage import TokenUsage

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
    """A search."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"examples": EXAMPLES, "anyOf": _NOT_BOTH})

    query: str = Field(
        min_length=1, pattern=r"\S", description="What the images should show, or how the reference should change."
    )
    collection: str | None = Field(default=None, description="The collection's name. Optional if there is only one.")
    reference: str | None = Field(
        default=None,
        min_length=1,
        description="The image that `query` changes: an image id of the collection, `fieldscope://NAME/ID`, or an "
        "image of your own as a data URL.",
    )
    dialogue: list[Turn] = Field(
        default=[], max_length=MOST_ROUNDS, fail_fast=True, description="The rounds that followed the query."
    )
    top_k: Annotated[Whole, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="How many images the first stage retrieves. Default: as the strategy says."
    )
    top_n: Whole = Field(default=DEFAULT_TOP_N, ge=1, description="How many images to return.")
    strategy: str | None = Field(default=None, description="One of `/v1/strategies`.")
    instruction: str | None = INSTRUCTION
    filter: GivenFilter | None = None
    budget: BudgetFields | None = None
    explain: Whole = Field(default=0, ge=0, le=100, description="How many of the best images get a reason.")
    precision: float | None = PRECISION
    confidence: float = CONFIDENT
    predicates: bool | GivenPredicates = Field(
        default=False,
        description="True: return the questions, and their answers with each image. A list: ask these questions in "
        "place of those that the model would derive from the query, and return them with their answers.",
    )
    stream: bool = Field(default=False, description="Send events as they happen; the last one is the reply.")

    @model_validator(mode="after")
    def _one_kind(self) -> SearchBody:
        if self.reference is not None and self.dialogue:
            raise ValueError("a query can't have both a reference and a dialogue; send one of the two")
        return self


class Answer(BaseModel):
    """The model's answer to one question about one image."""

    predicate: str
    state: Literal["answered", "unknown", "not_asked"]
    p_expected: float | None = Field(description="The probability of the answer that a match must give.")
    answer: str


class RankedImage(BaseModel):
    """An image at its rank. `prior` and `prior_rank` are the first stage's."""

    rank: int
    image: str = Field(description="Its id in the collection.")
    url: str = Field(description="Every endpoint accepts it as an image.", examples=["fieldscope://fieldnotes/12"])
    score: float
    p_match: float | None
    judged: HowJudged = Field(description="`not judged` if no model answered about the image.")
    prior: float
    prior_rank: int
    rank_low: int | None = Field(
        description="Its rank is between `rank_low` and `rank_high` with a probability of 90 %."
    )
    rank_high: int | None
    reason: str | None = None
    verdicts: list[Answer] | None = None
    kept: bool | None = KEPT
    alike: list[str] | None = Field(
        default=None,
        description="The ids of all ranked near duplicates and pictures of its burst, if there are others.",
    )
    metadata: dict[str, str] | None = Field(
        default=None,
        description="The cells of the image by column, from a table and EXIF. No model saw them.",
    )


class SearchUsage(TokenUsage):
    """Questions to the model, `cached` ones among them, their tokens, and the seconds that the ranking took."""

    calls: int
    cached: int
    unknown: int
    seconds: float


class SearchReply(BaseModel):
    """The ranking, best first. `candidates` is how many images were ranked; `ended` is the stage that the budget cut
    short."""

    trace_id: str
    collection: str
    query: str
    model: str
    strategy: str
    results: list[RankedImage]
    candidates: int
    predicates: list[Predicate] | None = None
    nothing: NothingFound | None = Field(description="Not null if no image seems to match.")
    relative: bool = Field(description="Whether P(match) can't be compared with that of another list of images.")
    ended: str | None
    flags: list[str]
    usage: SearchUsage
    cutoff: CutoffReply | None = CUTOFF


async def prepare(engine: Engine, body: SearchBody) -> SearchCall:
    """The call for a body. Raises `ApiError`."""
    unlisted_flags(body.model_extra or {})
    engine.strategy(body.strategy)
    await engine.refreshing.follow_index(engine.searchable(body.collection).name)
    served = engine.searchable(body.collection)
    wanted = wanted_filter(body.filter)
    await asyncio.to_thread(require_satisfied, served, wanted)
    reference = body.reference
    if reference in served.ids:
        reference = served.reference(reference)
    inputs = await read_inputs(DocumentObject(text=body.query, image=reference), (), engine)
    characters = sum(len(turn.question) + len(turn.answer) for turn in body.dialogue)
    if characters > engine.limits.max_text:
        raise ApiError(
            422,
            "text_too_long",
            f"the dialogue has {characters} characters, over the limit of {engine.limits.max_text}; shorten it",
        )
    return SearchCall(
        collection=served.name,
        **vars(inputs),
        dialogue=tuple(body.dialogue),
        top_k=body.top_k,
        options=Options(
            body.strategy,
            body.budget.budget() if body.budget else None,
            body.explain,
            body.instruction,
            Wanted(body.precision, body.confidence),
            fixed_predicates(body.predicates if isinstance(body.predicates, list) else None),
            wanted,
        ),
    )


async def answer(engine: Engine, body: SearchBody, call: SearchCall, watch: Watch | None = None) -> SearchReply:
    """Search, and reply."""
    return reply_of(engine, body, call, await engine.search(call, watch))


def reply_of(engine: Engine, body: SearchBody, call: SearchCall, reranked: Reranked) -> SearchReply:
    """The reply to a body, from its ranking."""
    result = reranked.result
    reasons = {reason.image_id: reason.text for reason in result.reasons if reason.text}
    verdicts = verdicts_by_image(result) if body.predicates else {}
    judged = judged_images(result)
    prefix = image_reference(call.collection, "")
    ranked_ids = [ranked.image_id.removeprefix(prefix) for ranked in result.ranking]
    alike = {prefix + image_id: ids for image_id, ids in engine.collection(call.collection).alike(ranked_ids).items()}
    results = [
        RankedImage(
            **ranked.model_dump(include={"rank", "score", "p_match", "prior", "prior_rank", "rank_low", "rank_high"}),
            image=ranked.image_id.removeprefix(prefix),
            url=ranked.image_id,
            judged="picture" if ranked.image_id in judged else "not judged",
            reason=reasons.get(ranked.image_id),
            verdicts=[
                Answer(predicate=name, state=verdict.state, p_expected=verdict.p_expected, answer=verdict.answer)
                for name, verdict in verdicts.get(ranked.image_id, {}).items()
            ]
            if body.predicates
            else None,
            kept=ranked.image_id in reranked.kept.images if reranked.kept is not None else None,
            metadata=metadata_of(engine.collections, ranked.image_id),
            alike=alike.get(ranked.image_id),
        )
        for ranked in result.ranking[: body.top_n]
    ]
    questions = list(result.predicates) if body.predicates else None
    return SearchReply(
        trace_id=result.query_id,
        collection=call.collection,
        query=call.query,
        model=reranked.model,
        strategy=result.strategy,
        results=results,
        candidates=len(result.ranking),
        predicates=questions,
        nothing=NothingFound.of(result, prefix),
        relative=result.relative,
        ended=result.ended,
        flags=[*unlisted_flags(body.model_extra or {}), *result.flags],
        usage=SearchUsage.of(
            result,
            calls=len(result.asked),
            cached=sum(question.cached for question in result.asked),
            unknown=sum(question.state == "unknown" for question in result.asked),
            seconds=round(result.trace[-1].at, 3) if result.trace else 0.0,
        ),
        cutoff=CutoffReply.of(reranked.kept),
    )


router = APIRouter(prefix="/v1", tags=["search"], dependencies=[Depends(require_bounded)])

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": SearchReply,
        "content": {MEDIA_TYPE: {"schema": SCHEMA}},
        "description": "The ranking; if events were requested, the trace's events, then `result` or `error`.",
    }
}


@router.post(
    "/search", response_model=SearchReply, responses={**WORK_RESPONSES, **_STREAMED}, summary="Search a collection"
)
async def search(
    body: SearchBody,
    engine: EngineOf,
    accept: Annotated[str, Header(description="`text/event-stream` requests events.")] = "",
) -> Response:
    """Retrieve images, check each of them, and rank. With `stream`, or if `Accept` is `text/event-stream`, the stages
    arrive as server-sent events; the last event is `result`, with the same reply, or `error`."""
    call = await prepare(engine, body)
    if body.stream or MEDIA_TYPE in accept:
        return _streamed(engine, body, call)
    reply = await answer(engine, body, call)
    return JSONResponse(reply.model_dump(mode="json"), headers={TRACE_ID: reply.trace_id})


def _streamed(engine: Engine, body: SearchBody, call: SearchCall) -> StreamingResponse:
    feed = Feed()

    async def work() -> Event:
        try:
            reply = await answer(engine, body, call, lambda step: feed.put(event(step.kind, event_data(step))))
            return Event("result", reply.model_dump_json())
        except Exception as error:  # noqa: BLE001 - the status is sent already, so the error becomes an event
            return event("error", failure(error))

    return stream(feed.during(work))

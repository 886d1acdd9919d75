"""`/v1/searches/{id}/marks`, `/refit` and `/queue`: people's marks on what a kept search found, and what follows from
them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.file import LINE
from fieldscope.eval.labels.queue import ReviewQueue, labelled, waiting
from fieldscope.eval.labels.relearn import relearn
from fieldscope.eval.runs.marks import Mark, Marks
from fieldscope.eval.runs.searches import SearchFolder
from fieldscope.service.server.api.bodies import require_bounded
from fieldscope.service.server.api.dependencies import EngineOf
from fieldscope.service.server.api.engine import Engine
from fieldscope.service.server.api.errors import RESPONSES, ApiError, responses
from fieldscope.service.server.api.kept import URL, find_search, require_finished
from fieldscope.service.server.api.searchview import open_search, shared_prefix
from fieldscope.service.workflows.label import report_data, report_lines
from fieldscope.service.workflows.marks import index_vectors

if TYPE_CHECKING:
    from fieldscope.retrieval.encoder import Vectors

_LONGEST_PERSON = 100
_EXAMPLES: list[Any] = [{"marks": {"fieldscope://fieldnotes/12": "accepted", "fieldscope://fieldnotes/7": None}}]


class MarksBody(BaseModel):
    """Marks on images of a query (null: the search's first). A mark of null takes an earlier one back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _EXAMPLES})

    marks: dict[str, Mark | None] = Field(min_length=1, max_length=10_000)
    query_id: str | None = None
    by: str = Field(default="", max_length=_LONGEST_PERSON, description="Who marks, for agreement between people.")


class MarksView(BaseModel):
    """The marks that count, by image, and everyone who marked."""

    query_id: str
    marks: dict[str, Mark]
    people: list[str]


class RefittedImage(BaseModel):
    """An image that nobody accepted or rejected, at its new place. `moved` is how many ranks among these images it
    rose (negative: fell)."""

    image: str
    p_match: float
    moved: int


class RefitView(BaseModel):
    """The ranking refitted to the marks: the other images, best first, and what changed in sentences."""

    query_id: str
    images: list[RefittedImage]
    changes: list[str]


class QueueBody(BaseModel):
    """How many more images to draw (0: none). The first call begins the queue, with the `line` of P(match) above which
    its precision is estimated."""

    model_config = ConfigDict(extra="forbid")

    images: int = Field(default=10, ge=0, le=1000)
    line: float = Field(default=LINE, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    query_id: str | None = None


class Drawn(BaseModel):
    """An image to look at: why it was drawn, on which side of the line, and with which probability among the images of
    its side that had not been drawn before."""

    image: str
    how: str
    side: str | None
    number: int | None
    probability: float | None


class QueueView(BaseModel):
    """The images that wait for a mark, in the order in which to look at them, and what the marks of drawn images say,
    in sentences and for programs."""

    query_id: str
    waiting: list[Drawn]
    drawn: int
    report: list[str]
    estimates: dict[str, Any]


SearchId = Annotated[str, PathParameter(max_length=128)]
QueryId = Annotated[str | None, Query(max_length=500, description="One of its queries. Default: the first.")]

router = APIRouter(prefix=URL, tags=["searches"])
_ONE = RESPONSES | responses(404, 409)
_BOUNDED = [Depends(require_bounded)]


@router.get("/{search_id}/marks", responses=_ONE, summary="Get the marks")
def get_marks(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> MarksView:
    """The last mark of an image counts."""
    folder = find_search(engine, search_id)
    return _marks_view(folder, _query_of(folder, query_id))


@router.post("/{search_id}/marks", responses=_ONE, dependencies=_BOUNDED, summary="Mark images")
def put_marks(search_id: SearchId, body: MarksBody, engine: EngineOf) -> MarksView:
    """The marks are on the disk before the reply is sent. Raises 422 for an image that is not in the ranking."""
    folder = find_search(engine, search_id)
    query_id = _query_of(folder, body.query_id)
    ranked = {each.image_id for each in open_search(folder).result(query_id).ranking}
    if unknown := next((image for image in body.marks if image not in ranked), None):
        raise ApiError(422, "unknown_image", f"{unknown[:100]!r} is not in this ranking; mark images that are")
    Marks(folder.path).put(query_id, body.marks, body.by.strip())
    return _marks_view(folder, query_id)


@router.get("/{search_id}/refit", responses=_ONE, summary="The ranking refitted to the marks")
def refit_search(search_id: SearchId, engine: EngineOf, query_id: QueryId = None) -> RefitView:
    """Asks no model. The weights of the first stage and of each predicate are refitted to accepted and rejected images,
    and images like the accepted ones rise. The search itself stays as it is."""
    folder = find_search(engine, search_id)
    chosen = _query_of(folder, query_id)
    result = open_search(folder).result(chosen)
    ids = [ranked.image_id for ranked in result.ranking]
    try:
        refitted = relearn(result, Marks(folder.path).of(chosen), _vectors_of(engine, folder, ids))
    except ConfigError as error:
        raise ApiError(409, "no_marks", str(error)) from error
    return RefitView(
        query_id=chosen,
        images=[
            RefittedImage(image=image, p_match=p, moved=refitted.moved[image]) for image, p in refitted.p_match.items()
        ],
        changes=[sentence.replace(shared_prefix(result), "") for sentence in refitted.changes],
    )


@router.post("/{search_id}/queue", responses=_ONE, dependencies=_BOUNDED, summary="What to look at next")
def draw_queue(search_id: SearchId, body: QueueBody, engine: EngineOf) -> QueueView:
    """Uncertain images first, and a random part of them all, each with the probability of its draw. The marks of drawn
    images estimate the precision above the line and the matches below it."""
    folder = find_search(engine, search_id)
    query_id = _query_of(folder, body.query_id)
    result = open_search(folder).result(query_id)
    try:
        file = ReviewQueue(folder.path, query_id).draw(result, body.images, body.line)
        file = labelled(file, Marks(folder.path).of(query_id))
    except ConfigError as error:
        raise ApiError(409, "no_queue", str(error)) from error
    return QueueView(
        query_id=query_id,
        waiting=[Drawn(**line.model_dump(include=set(Drawn.model_fields))) for line in waiting(file)],
        drawn=len(file.lines),
        report=list(report_lines(file, body.confidence)),
        estimates=report_data(file, body.confidence),
    )


def _vectors_of(engine: Engine, folder: SearchFolder, ids: list[str]) -> Vectors | None:
    """The images' vectors: from the service's indexes, or from the one that a search of the command line names."""
    known = engine.known_vectors(ids)
    place = folder.record.collection
    return index_vectors(Path(place), ids) if known is None and place is not None else known


def _query_of(folder: SearchFolder, query_id: str | None) -> str:
    """A query of a finished search. Raises `ApiError`."""
    require_finished(folder)
    queries = open_search(folder).digests
    if query_id is not None and query_id not in queries:
        raise ApiError(404, "unknown_query", f"search {folder.id} has no query {query_id[:64]!r}; leave query_id out")
    return query_id or next(iter(queries))


def _marks_view(folder: SearchFolder, query_id: str) -> MarksView:
    marks = Marks(folder.path)
    return MarksView(query_id=query_id, marks=marks.of(query_id), people=[name for name in marks.people() if name])

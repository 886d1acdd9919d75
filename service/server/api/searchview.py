"""A kept search as a client sees it: its ranking with answers, boxes of closer looks and marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fieldscope.agent.trace_view import judged_images, verdicts_by_image
from fieldscope.agent.types import Predicate, RerankResult, Verdict
from fieldscope.core.paths import without_folders
from fieldscope.core.types import Turn
from fieldscope.eval.runs.marks import MARKS, Mark, Marks
from fieldscope.eval.runs.searches import SearchFolder
from fieldscope.retrieval.union import UnionCollection
from fieldscope.service.server.api.calls import HowJudged
from fieldscope.service.server.api.jobstore import JobState
from fieldscope.service.server.api.kept import SearchState
from fieldscope.service.server.api.nothing import NothingFound
from fieldscope.service.server.api.pictures import SCHEME
from fieldscope.service.server.api.search import SearchUsage
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.run import Run, open_run
from fieldscope.service.workflows.ranking import Ranking

VIEWED = "/searches"
"""Where the application mounts the viewer of kept searches."""

Box = tuple[float, float, float, float]

Cells = Callable[[str], dict[str, str] | None]
"""What is known of an image by column; None where nothing is."""


class LookView(BaseModel):
    """A closer look at an image: what was asked there, and the answer. `box` is left, top, right and bottom as shares
    of the picture, null for an enhanced picture as a whole."""

    predicate: str
    box: Box | None
    enhanced: bool
    state: Literal["answered", "unknown", "not_asked"]
    p_expected: float | None


class PartView(BaseModel):
    """Whether a predicate holds of an image. `p_expected` is null where there is no answer, and `state` says why."""

    predicate: str
    state: Literal["answered", "unknown", "not_asked"]
    p_expected: float | None
    answer: str


class ImageRow(BaseModel):
    """An image of a kept search at its rank. `thumbnail` and `picture` are addresses below the service's root."""

    image: str
    name: str
    rank: int
    score: float
    p_match: float | None
    prior: float
    prior_rank: int
    rank_low: int | None
    rank_high: int | None
    judged: HowJudged
    reason: str | None
    parts: list[PartView]
    looks: list[LookView]
    mark: Mark | None
    metadata: dict[str, str] | None = Field(description="Its cells by column, from a table and EXIF.")
    alike: list[str] = Field(
        description="The ranked near duplicates and pictures of its burst, best first, itself among them; empty if it "
        "is alone."
    )
    thumbnail: str | None
    picture: str | None
    page: str


class QueryOfSearch(BaseModel):
    """A query of a kept search."""

    id: str
    text: str


class SearchSummary(BaseModel):
    """A kept search in a list. `page` is its page in the viewer, null until it has a ranking."""

    id: str
    name: str
    created: str
    state: SearchState
    query: str
    collection: str | None
    strategy: str | None
    job: str | None
    events: str | None
    page: str | None
    marks: dict[Mark, int]


class SearchView(SearchSummary):
    """A kept search with one of its queries. `request` is the body that repeats it. Without a ranking there are no
    `results`, and `problem` says why where the search failed."""

    request: dict[str, Any]
    problem: str | None = None
    queries: list[QueryOfSearch] = []
    query_id: str | None = None
    reference: str | None = None
    dialogue: list[Turn] = []
    predicates: list[Predicate] = []
    results: list[ImageRow] = []
    nothing: NothingFound | None = None
    relative: bool = Field(default=False, description="Whether P(match) can't be compared with that of another list.")
    ended: str | None = None
    flags: list[str] = []
    usage: SearchUsage | None = None


def summary(folder: SearchFolder, job: JobState | None) -> SearchSummary:
    """A search in a list; `job` is the state of its job, None where it is gone. Raises `ConfigError`."""
    record, marks = folder.record, Marks(folder.path)
    counts = [mark for of_query in marks.by_query().values() for mark in of_query.values()]
    request = record.request
    state: SearchState = "done" if folder.finished else job if job and job != "done" else "stopped"
    return SearchSummary(
        id=folder.id,
        name=record.name,
        created=record.created,
        state=state,
        query=str(request.get("query", record.name)),
        collection=record.collection,
        strategy=request.get("strategy"),
        job=record.job,
        events=f"/v1/jobs/{record.job}/events" if record.job else None,
        page=f"{VIEWED}/{addresses.run_page(addresses.slug(folder.id))}" if folder.finished else None,
        marks={mark: counts.count(mark) for mark in MARKS},
    )


def view(
    folder: SearchFolder, job: JobState | None, query_id: str | None, problem: str | None, cells: Cells
) -> SearchView:
    """A search with the ranking of a query (None: its first). Raises `ConfigError`, and `KeyError` for a query that it
    has not."""
    told = summary(folder, job).model_dump()
    request = folder.record.request
    if not folder.finished:
        return SearchView(**told, request=request, problem=problem)
    run = open_search(folder)
    chosen = query_id or next(iter(run.digests))
    result = run.result(chosen)
    told |= {"query": result.query_text, "strategy": result.strategy}
    return SearchView(
        **told,
        request=request,
        queries=[QueryOfSearch(id=each, text=digest.text) for each, digest in run.digests.items()],
        query_id=chosen,
        reference=result.reference_image,
        dialogue=list(result.dialogue),
        predicates=list(result.predicates),
        results=rows(run, result, Marks(folder.path).of(chosen), cells),
        nothing=NothingFound.of(result, shared_prefix(result)),
        relative=result.relative,
        ended=result.ended,
        flags=list(result.flags),
        usage=SearchUsage.of(
            result,
            calls=len(result.asked),
            cached=sum(question.cached for question in result.asked),
            unknown=sum(question.state == "unknown" for question in result.asked),
            seconds=round(result.trace[-1].at, 3) if result.trace else 0.0,
        ),
    )


def open_search(folder: SearchFolder, store: Path | None = None) -> Run:
    """The search as the viewer reads it. Raises `ConfigError` where it can't be read."""
    run = open_run(addresses.slug(folder.id), folder.record.name, folder.path, None, store)
    _ = run.configuration
    return run


def rows(run: Run, result: RerankResult, marks: Mapping[str, Mark], cells: Cells) -> list[ImageRow]:
    """The images of a ranking, best first, with the `cells` of their metadata."""
    reasons = {reason.image_id: reason.text for reason in result.reasons if reason.text}
    verdicts, judged = verdicts_by_image(result), judged_images(result)
    looks: dict[str, list[Verdict]] = {}
    for verdict in result.verdicts:
        if verdict.look is not None:
            looks.setdefault(verdict.image_id, []).append(verdict)
    pictures = run.pictures
    alike = Ranking(result, UnionCollection({}), records=run.records).alike
    return [
        ImageRow(
            **ranked.model_dump(include={"rank", "score", "p_match", "prior", "prior_rank", "rank_low", "rank_high"}),
            image=ranked.image_id,
            name=shown_name(ranked.image_id),
            judged="picture" if ranked.image_id in judged else "not judged",
            reason=reasons.get(ranked.image_id),
            parts=[
                PartView(predicate=name, state=v.state, p_expected=v.p_expected, answer=v.answer)
                for name, v in verdicts.get(ranked.image_id, {}).items()
            ],
            looks=[_look(verdict) for verdict in looks.get(ranked.image_id, ())],
            mark=marks.get(ranked.image_id),
            metadata=cells(ranked.image_id),
            alike=list(group) if len(group := alike(ranked.image_id)) > 1 else [],
            thumbnail=_address(addresses.thumbnail, pictures, ranked.image_id),
            picture=_address(addresses.picture, pictures, ranked.image_id),
            page=f"{VIEWED}/{addresses.image_page(run.key, result.query_id, ranked.image_id)}",
        )
        for ranked in result.ranking
    ]


def shown_name(image_id: str) -> str:
    """An image's id for people: without the prefix of its collection, and without folders of an absolute path."""
    if image_id.lower().startswith(SCHEME):
        return image_id[len(SCHEME) :].partition("/")[2]
    return without_folders(image_id)


def shared_prefix(result: RerankResult) -> str:
    """What all ids of a ranking begin with."""
    first = result.ranking[0].image_id if result.ranking else ""
    return "/".join(first.split("/", 3)[:3]) + "/" if first.lower().startswith(SCHEME) else ""


def _address(of: Any, pictures: str | None, image_id: str) -> str | None:
    return f"{VIEWED}/{of(pictures, image_id)}" if pictures is not None else None


def _look(verdict: Verdict) -> LookView:
    assert verdict.look is not None
    region = verdict.look.region
    return LookView(
        predicate=verdict.predicate,
        box=(region.left, region.top, region.right, region.bottom) if region else None,
        enhanced=verdict.look.enhance,
        state=verdict.state,
        p_expected=verdict.p_expected,
    )

"""A query in several runs: where the rankings differ, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.trace_diff import Diff, Image, diff
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError
from fieldscope.eval.reported import shared
from fieldscope.prompts.prompt import Prompt
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.charts.slopes import ROW
from fieldscope.service.viewer.comparison.one_query import (
    DEPTH,
    Prompts,
    Told,
    Whys,
    columns,
    furthest,
    predicates,
    prompts_of,
    told,
)
from fieldscope.service.viewer.comparison.sides import Side, sides
from fieldscope.service.viewer.page import Page
from fieldscope.service.viewer.runs.digest import QueryDigest
from fieldscope.service.viewer.runs.run import Run

SAID = 4
"""The number of verdicts shown for an image."""

TOPS = ("10", "20", "all")
"""The choices of how many ranks are shown."""

_QUOTED = 80  # characters of another query


@dataclass(frozen=True)
class Outcome:
    """A run's score of the query. `gain` is its score minus the first run's; both are None if the runs have different
    judgments or none."""

    side: Side
    digest: QueryDigest
    score: float | None
    gain: float | None


@dataclass(frozen=True)
class Against:
    """Run B against the first run: the images that sank and rose furthest, of all images and of the matches. `prompts`
    is None if a run does not keep their texts."""

    side: Side
    diff: Diff
    fell: Told | None
    rose: Told | None
    fell_match: Image | None
    rose_match: Image | None
    disagreements: tuple[Told, ...]
    prompts: list[Prompts] | None


def page(runs: Sequence[Run], query_id: str) -> Page:
    """The page of a query that the first run has ranked."""
    found = sides(runs)
    results, sentences = _results(found, query_id)
    diffs = _diffs(results, sentences)
    results = {side: result for side, result in results.items() if side in diffs or side is next(iter(results))}
    together = addresses.compare_page([run.key for run in runs])
    everywhere = [query for query in runs[0].digests if all(query in run.digests for run in runs)]
    place = everywhere.index(query_id) if query_id in everywhere else None
    first = next(iter(results.values()), None)
    main = shared(run.reported for run in runs).headline
    return Page(
        address=addresses.compare_query_page([run.key for run in runs], query_id),
        template="compare_query.html",
        title=runs[0].digests[query_id].text or query_id,
        context={
            "query_id": query_id,
            "keys": [run.key for run in runs],
            "previous": everywhere[place - 1] if place else None,
            "next": everywhere[place + 1] if place is not None and place + 1 < len(everywhere) else None,
            "place": None if place is None else place + 1,
            "of": len(everywhere),
            "sentences": sentences,
            "result": first,
            "results": results,
            "outcomes": _outcomes([*results], query_id, main),
            "main": main,
            "columns": columns(results, query_id) if results else [],
            "row": ROW,
            "depth": DEPTH,
            "tops": TOPS,
            "against": _against(results, diffs),
            "said": SAID,
            "predicates": predicates(results),
            "pictures": _pictures([*results]),
        },
        crumbs=[("Runs", addresses.INDEX), (" against ".join(_names(found)), together)],
        styles=("compare.css", "compare_query.css"),
        scripts=("compare.js",),
    )


def _names(found: Sequence[Side]) -> list[str]:
    """The names of the other runs, then the first."""
    return [", ".join(side.name for side in found[1:]), found[0].name]


def _results(found: Sequence[Side], query_id: str) -> tuple[dict[Side, RerankResult], list[str]]:
    """The results, and a sentence for each run whose result can't be shown."""
    results, sentences = {}, []
    for side in found:
        if query_id not in side.run.digests:
            sentences.append(f"{side.name} has not ranked this query{'' if side.run.finished else ' yet'}")
            continue
        try:
            results[side] = side.run.result(query_id)
        except ConfigError as error:
            sentences.append(f"{side.name} can't be shown: {error}")
    return results, sentences


def _diffs(results: Mapping[Side, RerankResult], sentences: list[str]) -> dict[Side, Diff]:
    """Every other run against the first. `sentences` gets one for each run that asks for something else."""
    if not results:
        return {}
    (_, own), *others = results.items()
    found = {}
    for side, result in others:
        try:
            found[side] = diff(own, result)
        except ConfigError:
            sentences.append(
                f"{side.name} asks for something else under this query's id: {result.query_text[:_QUOTED]!r}"
            )
    return found


def _outcomes(found: Sequence[Side], query_id: str, main: str) -> list[Outcome]:
    digests = [side.run.digests[query_id] for side in found]
    alike = len({side.run.relevant(query_id) for side in found}) == 1 and all(digest.scores for digest in digests)
    scores = [digest.scores[main] if alike else None for digest in digests]
    return [
        Outcome(side, digest, score, None if score is None or scores[0] is None else score - scores[0])
        for side, digest, score in zip(found, digests, scores, strict=True)
    ]


def _against(results: Mapping[Side, RerankResult], diffs: Mapping[Side, Diff]) -> list[Against]:
    whys = Whys({side.letter: result for side, result in results.items()})
    wordings = {side.letter: _wordings(side) for side in results}
    made = []
    for side, found in diffs.items():
        first = next(iter(results))
        fell, rose = furthest(found.images)
        matches = side.run.relevant(found.query_id) or frozenset()
        fell_match, rose_match = furthest(image for image in found.images if image.image_id in matches)
        own, its = wordings[first.letter], wordings[side.letter]
        made.append(
            Against(
                side=side,
                diff=found,
                fell=told(first, side, fell, whys) if fell else None,
                rose=told(first, side, rose, whys) if rose else None,
                fell_match=fell_match,
                rose_match=rose_match,
                disagreements=tuple(told(first, side, image, whys) for image in found.disagreements),
                prompts=None if own is None or its is None else prompts_of(own, its),
            )
        )
    return made


def _wordings(side: Side) -> tuple[Prompt, ...] | None:
    """The run's prompts; None if its folder does not have their texts."""
    strategy = side.run.strategy_in_full
    return strategy.prompts if strategy else None


def _pictures(found: Sequence[Side]) -> str | None:
    """The key of the collection with the images; None if no run has it."""
    return next((side.run.pictures for side in found if side.run.pictures is not None), None)

"""Runs next to each other: their names, what they have in common, and what a reader must know about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fieldscope.eval.runs.read import names_of
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.formats import plural
from fieldscope.service.viewer.runs.digest import QueryDigest
from fieldscope.service.viewer.runs.run import Run

_NAMED = 3  # queries that a sentence names


@dataclass(frozen=True, eq=False)
class Side:
    """One of the runs. `letter` is its place (A is the one that differences are to), `name` tells it from the others.
    Two sides are the same only as objects."""

    letter: str
    name: str
    run: Run

    @property
    def address(self) -> str:
        """Its page."""
        return addresses.run_page(self.run.key)


@dataclass(frozen=True)
class Common:
    """What all sides have: `queries` that each has ranked and that ask each for the same, in the order of A, and of
    those the ones that each could score against the same judgments. `sentences` say what was left out, and why."""

    queries: tuple[str, ...]
    scored: tuple[str, ...]
    sentences: tuple[str, ...]


def sides(runs: Sequence[Run]) -> list[Side]:
    """The runs by letters and short names."""
    names = names_of([run.folder for run in runs])
    return [Side(letter(place), name, run) for place, (name, run) in enumerate(zip(names, runs, strict=True))]


def letter(place: int) -> str:
    """A, B ... Z, A1, B1 ..."""
    return f"{chr(ord('A') + place % 26)}{place // 26 or ''}"


def common(found: Sequence[Side]) -> Common:
    """What these sides can be compared in."""
    first, *others = found
    everyone = [q for q in first.run.digests if all(q in other.run.digests for other in others)]
    same = [q for q in everyone if len({_asked(side.run.digests[q]) for side in found}) == 1]
    judged = [q for q in same if len({side.run.relevant(q) for side in found}) == 1]
    scored = [q for q in judged if all(side.run.digests[q].scores for side in found)]
    sentences = [
        *_tasks(first, others),
        *_unfinished(found),
        *_alone(found, set(everyone)),
        *_left_out(sorted(set(everyone) - set(same)), "asked for something else", "are not compared"),
        *_left_out(sorted(set(same) - set(judged)), "judged differently", "are not scored here"),
        *_unscored(found, judged, scored),
        *(sentence for side in found for sentence in _faults(side, same)),
    ]
    return Common(tuple(same), tuple(scored), tuple(sentences))


def _asked(digest: QueryDigest) -> str:
    return " ".join(digest.text.split()).casefold()


def _tasks(first: Side, others: Iterable[Side]) -> Iterator[str]:
    own = first.run.configuration.benchmark
    for other in others:
        its = other.run.configuration.benchmark
        if (own.name, own.split) != (its.name, its.split):
            yield (
                f"{first.name} is a run of {own.name} ({own.split}) and {other.name} one of {its.name} ({its.split}): "
                "only shared queries are compared"
            )
        elif own.fingerprint and its.fingerprint and own.fingerprint != its.fingerprint:
            yield (
                f"{first.name} and {other.name} have different queries, candidates, priors or judgments of "
                f"{own.name} ({own.split})"
            )


def _unfinished(found: Sequence[Side]) -> Iterator[str]:
    for side in found:
        if not side.run.finished and not side.run.is_search:
            ranked = len(side.run.digests)
            queries = plural(ranked, "query is", "queries are")
            yield f"{side.name} is not finished: {queries} ranked so far"


def _alone(found: Sequence[Side], everyone: set[str]) -> Iterator[str]:
    for side in found:
        if alone := [query for query in side.run.digests if query not in everyone]:
            queries = plural(len(alone), "query", "queries")
            yield f"{side.name} has {queries} that another run has not ranked; they are left out here: {_some(alone)}"


def _left_out(queries: Sequence[str], how: str, so: str) -> Iterator[str]:
    if queries:
        verb = "was" if len(queries) == 1 else "were"
        so = so.replace("are", "is", 1) if len(queries) == 1 else so
        yield f"{_some(queries)} {verb} {how} in these runs and {so}"


def _unscored(found: Sequence[Side], judged: Sequence[str], scored: Sequence[str]) -> Iterator[str]:
    if blind := [side.name for side in found if side.run.judgments is None]:
        yield (
            f"{' and '.join(blind)} {'does' if len(blind) == 1 else 'do'} not say which images match, so nothing can "
            "be scored; the rankings can still be compared, query by query"
        )
    elif unscored := len(judged) - len(scored):
        what = "1 query has" if unscored == 1 else f"{unscored} queries have"
        yield f"{what} no relevant image and {'is' if unscored == 1 else 'are'} left out of the metrics"


def _faults(side: Side, queries: Sequence[str]) -> Iterator[str]:
    digests = [side.run.digests[query] for query in queries]
    if unknown := sum(digest.unknown for digest in digests):
        yield f"{side.name}: {unknown:,} of {sum(digest.calls for digest in digests):,} calls failed"
    if ended := sum(digest.ended is not None for digest in digests):
        yield f"{side.name}: a budget ended the work on {ended:,} of {len(digests):,} queries"


def _some(queries: Sequence[str]) -> str:
    more = len(queries) - _NAMED
    return ", ".join(queries[:_NAMED]) + (f" and {more} more" if more > 0 else "")

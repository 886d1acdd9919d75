"""What the pages must say, worked out from the runs' own files."""

from __future__ import annotations

from collections.abc import Iterator

from fieldscope.agent.types import RankedCandidate
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site


def one_of_each(shelf: RunList) -> Iterator[tuple[str, str]]:
    """(name, address) of every kind of page, those that look unlike each other twice."""
    runs = shelf.runs()
    asking = next((run for run in runs if run.key == "agent"), runs[0])
    query = list(asking.digests)[min(1, len(asking.digests) - 1)]
    ranking = asking.result(query).ranking
    yield "runs", addresses.INDEX
    yield "run", addresses.run_page(asking.key)
    yield "prompts", addresses.prompts_page(asking.key)
    yield "annotations", addresses.annotations_page(asking.key)
    yield "query", addresses.query_page(asking.key, query)
    yield "image", addresses.image_page(asking.key, query, ranking[0].image_id)
    yield "image-last", addresses.image_page(asking.key, query, ranking[-1].image_id)
    plain = next((run for run in runs if run.key == "clip"), None)
    if plain is not None:
        yield "run-clip", addresses.run_page(plain.key)
        yield "query-clip", addresses.query_page(plain.key, query)
        yield "image-clip", addresses.image_page(plain.key, query, ranking[0].image_id)
    compared = [address for address in Site(shelf, live=False).addresses() if address.startswith("compare/")]
    yield from (("compare", each) for each in compared[:1])
    yield from (
        ("compare-query", each) for each in compared if "/queries/" in each and query in each and each.count("+") == 1
    )
    yield from (("compare-all", each) for each in compared if each.endswith("index.html") and each.count("+") > 1)


def percent(value: float) -> str:
    """As pages write a share."""
    return f"{100 * value:.1f}"


def chance(p: float) -> str:
    """As pages write a probability: none is nought or one."""
    return ">0.999" if p >= 0.9995 else "<0.001" if p < 0.0005 else f"{p:.3f}"


def hurt_most(a: Run, b: Run) -> str:
    """The query whose AP@50 fell most from one run to another."""
    lost = {query: b.digests[query].scores["AP@50"] - a.digests[query].scores["AP@50"] for query in a.digests}
    return min(lost, key=lambda query: lost[query])


def lost_most_ranks(a: Run, b: Run, query: str) -> set[str]:
    """The images that fell furthest from one run to another: one, unless some fell alike."""
    before = {ranked.image_id: ranked.rank for ranked in a.result(query).ranking}
    fell = {ranked.image_id: ranked.rank - before[ranked.image_id] for ranked in b.result(query).ranking}
    return {image_id for image_id, ranks in fell.items() if ranks == max(fell.values())}


def sank(run: Run, query: str, image_id: str) -> str:
    """The question that counts most against an image: about a part of the query, if any of those does."""
    shares = ranked(run, query, image_id).contributions
    against = [each for each in run.result(query).predicates if shares.get(each.id, 0.0) < 0]
    assert against
    return min(against, key=lambda each: (each.kind == "query", shares[each.id])).question


def ranked(run: Run, query: str, image_id: str) -> RankedCandidate:
    """An image in a ranking."""
    return next(each for each in run.result(query).ranking if each.image_id == image_id)

"""FieldNotes-Wild: its benchmarks, reranking and full retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.fieldnotes import backgrounds_of, open_fieldnotes
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fieldscope.core.types import Candidate
    from fieldscope.eval.types import Benchmark, QueryMeta
    from fieldscope.fieldnotes.queries import BenchmarkQuery, Split
    from fieldscope.retrieval.library import Library

TASK = "wild"


def rerank_benchmark(split: str, settings: Settings) -> tuple[Benchmark, Library]:
    """Every query over the 100 images that the encoder finds, at least one match among them where there is one."""
    from fieldscope.eval.types import Benchmark
    from fieldscope.fieldnotes.collection import read_split

    data = read_split(split, TASK)
    images, library = open_fieldnotes(split, settings, TASK)
    candidates = {query.id: _candidates(query, data, library) for query in data.queries}
    benchmark = Benchmark(
        name="fieldnotes-wild",
        split=split,
        queries=tuple(query.query for query in data.queries),
        qrels={q: {c.image_id: int(c.image_id in data.relevant[q]) for c in of} for q, of in candidates.items()},
        images=images,
        candidate_sets=candidates,
        meta=_meta(data),
        backgrounds=backgrounds_of(data, library),
    )
    return benchmark, library


def retrieval_benchmark(split: str, settings: Settings) -> tuple[Benchmark, Library]:
    """Every query over the whole collection, and the library that is searched."""
    from fieldscope.eval.types import Benchmark
    from fieldscope.fieldnotes.collection import read_split

    data = read_split(split, TASK)
    images, library = open_fieldnotes(split, settings, TASK)
    benchmark = Benchmark(
        name="fieldnotes-wild-fullrank",
        split=split,
        queries=tuple(query.query for query in data.queries),
        qrels={query.id: dict.fromkeys(sorted(data.relevant[query.id], key=int), 1) for query in data.queries},
        images=images,
        meta=_meta(data),
    )
    return benchmark, library


def _candidates(query: BenchmarkQuery, data: Split, library: Library) -> tuple[Candidate, ...]:
    """The images nearest to a query, in order of id. Where no match is among them, the nearest match takes the place
    of the last."""
    from fieldscope.core.types import Search
    from fieldscope.fieldnotes.rerank import TOP

    ranked = library.search(Search(query.query, len(data.scenes)))
    nearest, relevant = list(ranked[:TOP]), data.relevant[query.id]
    if relevant and not any(candidate.image_id in relevant for candidate in nearest):
        nearest[-1] = next(candidate for candidate in ranked if candidate.image_id in relevant)
    return tuple(sorted(nearest, key=lambda candidate: int(candidate.image_id)))


def _meta(data: Split) -> Mapping[str, QueryMeta]:
    from fieldscope.eval.types import QueryMeta
    from fieldscope.fieldnotes.wild.queries import WildQuery

    return {
        query.id: QueryMeta(query.supercategory, query.category, query.iconic_group, conditions=query.groups)
        for query in data.queries
        if isinstance(query, WildQuery)
    }


def open_rerank(request: BenchmarkRequest) -> Workload:
    """The benchmark "fieldnotes-wild"."""
    benchmark, library = rerank_benchmark(request.split or "test", request.settings)
    return Workload(benchmark, None, library.encoder.fingerprint, own=True)


def open_retrieval(request: BenchmarkRequest) -> Workload:
    """The benchmark "fieldnotes-wild-fullrank"."""
    benchmark, library = retrieval_benchmark(request.split or "test", request.settings)
    return Workload(benchmark, library, library.encoder.fingerprint, own=True)

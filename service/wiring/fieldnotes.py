"""FieldNotes: its searchable collections and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from fieldscope.core.errors import IndexMismatchError
from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.feedback import keeping, progress
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.core.types import Scale
    from fieldscope.eval.types import Benchmark
    from fieldscope.fieldnotes.queries import Split
    from fieldscope.retrieval.collection import FilesCollection
    from fieldscope.retrieval.encoder import Encoder
    from fieldscope.retrieval.library import Library


def open_fieldnotes(
    split: str, settings: Settings, task: str = "", encoder: Encoder | None = None
) -> tuple[FilesCollection, Library]:
    """A split's pictures and the library to search them, both made on first use. `encoder` stands in for the one that
    the settings name."""
    from fieldscope.fieldnotes.collection import published_checksums, read_split
    from fieldscope.retrieval.library import build_index, open_library

    data = read_split(split, task)
    images, encoder = _pictures(data), encoder or load_encoder(settings)
    drawn = published_checksums()[data.name]  # an index of the pictures of another version is none of these
    folder = cache_folder() / "fieldnotes" / f"index-{data.name}-{drawn[:8]}-{encoder.fingerprint[:16]}"
    try:
        return images, open_library(folder, encoder)
    except IndexMismatchError:  # not there yet, or damaged
        with progress(f"encoding FieldNotes' {data.name} pictures") as report:
            build_index(images, encoder, folder, encoder_name=settings.encoder or "bundled", progress=report)
        return images, open_library(folder, encoder)


def pictures(split: str) -> FilesCollection:
    """A split's pictures, rendered on first use. That forks, so it comes before models are loaded."""
    return drawn_pictures(split)


def drawn_pictures(split: str, task: str = "") -> FilesCollection:
    """The same of a task's split."""
    from fieldscope.fieldnotes.collection import read_split

    return _pictures(read_split(split, task))


def retrieval_benchmark(split: str, settings: Settings, task: str = "") -> tuple[Benchmark, Library]:
    """FieldNotes, or its task "composed" or "dialogue": every query over the whole collection, and the library that is
    searched."""
    from fieldscope.eval.types import Benchmark, QueryMeta
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.queries import images_one_fact_short

    data = read_split(split, task)
    images, library = open_fieldnotes(split, settings, task)
    benchmark = Benchmark(
        name=f"fieldnotes-{task}" if task else "fieldnotes",
        split=split,
        queries=tuple(query.query for query in data.queries),
        qrels={query.id: dict.fromkeys(sorted(data.relevant[query.id], key=int), 1) for query in data.queries},
        images=images,
        meta={q.id: QueryMeta(q.supercategory, q.category, q.iconic_group) for q in data.queries},
        near_misses=images_one_fact_short(data),
    )
    return benchmark, library


def rerank_benchmark(split: str, settings: Settings) -> tuple[Benchmark, Encoder]:
    """FieldNotes-Rerank: every query over the 100 images that the CLIP finds, in INQUIRE-Rerank's shape."""
    from fieldscope.eval.benchmarks.inquire_rerank import load_inquire_rerank
    from fieldscope.eval.reported import GENERAL
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.queries import images_one_fact_short
    from fieldscope.fieldnotes.rerank import ensure_backgrounds, ensure_rerank

    encoder = cache(partial(load_encoder, settings))  # loaded while other processes draw, since a fork must not copy it
    data = read_split(split)
    _pictures(data, beside=encoder)
    with progress(f"encoding FieldNotes' {split} pictures") as report:
        folder = ensure_rerank(split, encoder(), progress=report)
    benchmark = load_inquire_rerank(folder, split, name="fieldnotes-rerank")
    with progress(f"encoding a sample of FieldNotes' {split} pictures") as report:
        scales = ensure_backgrounds(split, encoder(), [q.text for q in benchmark.queries], folder, report)
    backgrounds = {q.id: scale for q, scale in zip(benchmark.queries, scales, strict=True) if scale is not None}
    near, ids = images_one_fact_short(data), {query.text: query.id for query in data.queries}
    near_misses = {query.id: near[ids[query.text]] for query in benchmark.queries if query.text in ids}
    own = replace(benchmark, reported=GENERAL, backgrounds=backgrounds, near_misses=near_misses)
    return own, encoder()


def unmatched_benchmark(split: str, settings: Settings) -> tuple[Benchmark, Library]:
    """FieldNotes-Unmatched: queries that no picture matches, each over the images of a standing collection that are
    nearest to it, and the library that found them."""
    from fieldscope.core.types import Search
    from fieldscope.eval.types import Benchmark, QueryMeta
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.fieldnotes.queries import images_one_fact_short
    from fieldscope.fieldnotes.rerank import TOP

    data = read_split(split, "unmatched")
    images, library = open_fieldnotes(data.name, settings)
    nearest = {query.id: library.search(Search(query.query, TOP)) for query in data.queries}
    benchmark = Benchmark(
        name="fieldnotes-unmatched",
        split=split,
        queries=tuple(query.query for query in data.queries),
        qrels={query.id: {candidate.image_id: 0 for candidate in nearest[query.id]} for query in data.queries},
        images=images,
        # In order of id, as in the other rerank benchmarks: the order of the rows says nothing.
        candidate_sets={q: tuple(sorted(found, key=lambda c: int(c.image_id))) for q, found in nearest.items()},
        meta={q.id: QueryMeta(q.supercategory, q.category, q.iconic_group) for q in data.queries},
        near_misses=images_one_fact_short(data),
        backgrounds=backgrounds_of(data, library),
    )
    return benchmark, library


def backgrounds_of(data: Split, library: Library) -> dict[str, Scale]:
    """How similar a sample of the collection is to each query, by its id; empty for a collection that is too small."""
    scales = {query.id: library.background(library.query_vector(query.query)) for query in data.queries}
    return {query_id: scale for query_id, scale in scales.items() if scale is not None}


def open_unmatched(request: BenchmarkRequest) -> Workload:
    """The benchmark "fieldnotes-unmatched"."""
    benchmark, library = unmatched_benchmark(request.split or "test", request.settings)
    return Workload(benchmark, None, library.encoder.fingerprint, own=True)


def open_rerank(request: BenchmarkRequest) -> Workload:
    """The benchmark "fieldnotes-rerank"."""
    benchmark, encoder = rerank_benchmark(request.split or "test", request.settings)
    return Workload(benchmark, None, encoder.fingerprint, own=True)


def _searched(request: BenchmarkRequest, task: str) -> Workload:
    benchmark, library = retrieval_benchmark(request.split or "test", request.settings, task)
    return Workload(benchmark, library, library.encoder.fingerprint, own=True)


open_retrieval = partial(_searched, task="")
open_composed = partial(_searched, task="composed")
open_dialogue = partial(_searched, task="dialogue")
"""The benchmarks "fieldnotes", "fieldnotes-composed" and "fieldnotes-dialogue"."""


def _pictures(data: Split, beside: Callable[[], object] | None = None) -> FilesCollection:
    from fieldscope.fieldnotes.collection import ensure_pictures
    from fieldscope.retrieval.collection import FilesCollection

    with keeping("the pictures so far are kept"), progress(f"rendering FieldNotes' {data.name} pictures") as report:
        return FilesCollection(ensure_pictures(data.name, progress=report, beside=beside))

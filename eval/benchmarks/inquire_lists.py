"""INQUIRE-Fullrank without embeddings: its queries over the images of published lists (`inquire_top_k`)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Candidate
from fieldscope.eval.benchmarks.inquire_images import PROBED, INatImages, image_root, places_of
from fieldscope.eval.benchmarks.inquire_tables import ANNOTATIONS, benchmark_name, read_tables, spelled, stem
from fieldscope.eval.benchmarks.inquire_top_k import RankedImages
from fieldscope.eval.reported import INQUIRE_FULLRANK
from fieldscope.eval.types import Benchmark


def load_ranked_lists(
    path: Path, split: str | None, lists: Mapping[str, RankedImages]
) -> tuple[Benchmark, dict[str, tuple[Candidate, ...]], dict[str, str]]:
    """A split whose images are those of lists by query text; the candidates of each query, best first; and the images'
    paths by their ids, which are the files' names.

    Raises `BenchmarkError` for tables of another shape, an unknown split, queries without a list, and lists that hold
    none of the relevant images.
    """
    tables = read_tables(path, split)
    if without := [query.text for query in tables.queries if query.text not in lists]:
        raise BenchmarkError(
            f"{len(without):,} of {len(tables.queries):,} queries have no list of images, such as {without[0]!r}. Name "
            f"the lists that were made for the split {tables.split!r}."
        )
    own = {query.id: lists[query.text] for query in tables.queries}
    every = {spelled(image) for listed in own.values() for image in listed.paths}
    paths = {stem(image): image for image in sorted(every)}
    if len(paths) < len(every):
        raise BenchmarkError("two images of these lists have files of the same name. Fetch the lists again.")
    if every.isdisjoint(positive.path for positive in tables.relevant):
        raise BenchmarkError(
            f"none of the relevant images is in these lists. Name lists whose images are called as in {ANNOTATIONS}."
        )
    root = image_root(places_of(tables.folder), list(islice(paths.values(), PROBED)))
    benchmark = Benchmark(
        name=benchmark_name(path),
        split=tables.split,
        queries=tables.queries,
        qrels={
            query.id: {stem(positive.path): 1 for positive in tables.positives.get(query.id, ())}
            for query in tables.queries
        },
        images=INatImages(root, paths),
        meta=tables.meta,
        oddities=tables.oddities,
        reported=INQUIRE_FULLRANK,
    )
    candidates = {
        query: tuple(
            Candidate(stem(spelled(image)), score) for image, score in zip(listed.paths, listed.scores, strict=True)
        )
        for query, listed in own.items()
    }
    return benchmark, candidates, paths

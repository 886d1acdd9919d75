"""INQUIRE-Fullrank (Vendrow et al. 2024, arXiv 2411.02537): queries over a whole collection of embedded images.

A folder with `inquire_queries_*.csv` and `inquire_annotations.csv`, as INQUIRE publishes them; in it or beside it lie
the embeddings (`fieldscope.eval.benchmarks.embeddings`) and, for strategies that look, the images. Species and places
are part of a published path and so of the answer key: where paths name the images, an id is the file's name alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.text_rows import MappedTexts, PairedTexts, TextRows
from fieldscope.eval.benchmarks.embedding_folders import find_embeddings
from fieldscope.eval.benchmarks.embeddings import ID_COLUMNS, PATH_COLUMNS, Embeddings, open_embeddings
from fieldscope.eval.benchmarks.inquire_images import PROBED, INatImages, image_root, places_of
from fieldscope.eval.benchmarks.inquire_tables import (
    ANNOTATIONS,
    Positive,
    benchmark_name,
    read_tables,
    require_tables,
    spelled,
    stem,
    tables_folder,
)
from fieldscope.eval.reported import INQUIRE_FULLRANK
from fieldscope.eval.types import Benchmark


@dataclass(frozen=True)
class Fullrank:
    """A split of INQUIRE-Fullrank, and the vectors to search: `ids` are the images' ids, along the embeddings.

    `missing` counts relevant images without an embedding; they count as missed. `has_images` says whether an image
    root was found.
    """

    benchmark: Benchmark
    embeddings: Embeddings
    ids: Sequence[str]
    missing: int
    has_images: bool


def is_fullrank(path: Path) -> bool:
    """Whether `path`, or `inquire` below it, is a folder of INQUIRE-Fullrank's tables."""
    return tables_folder(path) is not None


def load_inquire_fullrank(
    path: Path,
    split: str | None = None,
    encoder: str | None = None,
    name: str | None = None,
    *,
    embeddings: Path | None = None,
) -> Fullrank:
    """A split of INQUIRE-Fullrank; without `split` the test split. `encoder` is the name of the one that will encode
    the queries, by which the embeddings of several models are distinguished; `embeddings` is a folder of vectors, or of
    such folders, in place of those that lie in or beside the tables.

    Raises `BenchmarkError` for tables of another shape, an unknown split, missing or unreadable embeddings, and
    embeddings that hold none of the relevant images.
    """
    tables = read_tables(path, split)
    places = places_of(tables.folder)
    vectors = open_embeddings(find_embeddings(places, encoder, embeddings))
    ids, paths, by_path, rows = _named(vectors, tables.relevant)
    qrels = {
        query.id: {_called(positive, by_path): 1 for positive in tables.positives.get(query.id, ())}
        for query in tables.queries
    }
    relevant = (positive.path for positive in tables.relevant)
    images = INatImages(image_root(places, [*islice(relevant, PROBED), *islice(paths.values(), PROBED)]), paths)
    benchmark = Benchmark(
        name=name or benchmark_name(path),
        split=tables.split,
        queries=tables.queries,
        qrels=qrels,
        images=images,
        meta=tables.meta,
        oddities=tables.oddities,
        reported=INQUIRE_FULLRANK,
    )
    missing = sum(rows.find(image, ids) is None for judged in qrels.values() for image in judged)
    return Fullrank(benchmark, vectors, ids, missing, images.root is not None)


def embeddings_folder(path: Path, encoder: str | None, embeddings: Path | None = None) -> Path:
    """The folder of vectors that `load_inquire_fullrank` would open. Raises `BenchmarkError` where there is none."""
    return find_embeddings(places_of(require_tables(path)), encoder, embeddings)


def _called(positive: Positive, by_path: bool) -> str:
    """A relevant image's id among the embedded ones."""
    return stem(positive.path) if by_path else positive.image_id


def _named(
    embeddings: Embeddings, every: Sequence[Positive]
) -> tuple[Sequence[str], Mapping[str, str], bool, TextRows]:
    """The embedded images' ids in order, the path of each (where it is known), whether ids come from paths, and where
    each id stands.

    The first column that names relevant images decides: ids as the annotations have them, else paths.
    """
    annotated_ids, annotated_paths = {positive.image_id for positive in every}, {positive.path for positive in every}
    columns = embeddings.columns
    paths = next(
        (
            files
            for column in (*PATH_COLUMNS, "")
            if column in columns and not annotated_paths.isdisjoint(files := MappedTexts(spelled, columns[column]))
        ),
        None,
    )
    ids = next((columns[c] for c in (*ID_COLUMNS, "") if not annotated_ids.isdisjoint(columns.get(c, ()))), None)
    if ids is None and paths is None:
        raise BenchmarkError(
            f"none of the {len(annotated_ids):,} relevant images is among the {len(embeddings):,} in "
            f"{str(embeddings.folder)!r}. Name its images by image_id or image_path as {ANNOTATIONS} does"
        )
    chosen = ids if ids is not None else MappedTexts(stem, paths or ())
    rows = TextRows.of(chosen)
    if rows.repeated(chosen) is not None:
        raise BenchmarkError(
            f"{str(embeddings.folder)!r} names two images alike. Give each an image_id of its own in ids.csv."
        )
    known = PairedTexts(chosen, paths, rows) if paths else {positive.image_id: positive.path for positive in every}
    return chosen, known, ids is None, rows

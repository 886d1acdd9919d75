"""INQUIRE: from the hub, from files, or with its whole collection made searchable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.retrieval.encoder import inputs_of
from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.bundled import require_known_words
from fieldscope.service.wiring.feedback import note, progress, warn
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import BUNDLED, Settings

if TYPE_CHECKING:
    from fieldscope.eval.benchmarks.inquire_fullrank import Fullrank
    from fieldscope.eval.types import Benchmark
    from fieldscope.retrieval.encoder import Encoder, Vectors
    from fieldscope.retrieval.index_plan import IndexPlan
    from fieldscope.retrieval.large_manifest import LargeManifest
    from fieldscope.retrieval.library import Library

_SHOWN = 5  # oddities of a benchmark's files


def open_hub(request: BenchmarkRequest) -> Benchmark:
    """The benchmark "evendrow/INQUIRE-Rerank" as it is published, copied into the cache folder on first use."""
    from fieldscope.eval.benchmarks.inquire_hub import fetch_inquire_rerank

    with progress("fetching INQUIRE-Rerank") as report:
        folder = fetch_inquire_rerank(cache_folder() / "inquire-rerank", request.split, report)
    return open_rerank(folder, request.split)


def open_rerank_files(request: BenchmarkRequest) -> Benchmark:
    """The benchmark "inquire-rerank", whose argument is the path of its files."""
    return open_rerank(Path(request.argument), request.split)


def open_rerank(path: Path, split: str | None) -> Benchmark:
    """A split of Parquet files in INQUIRE-Rerank's shape, with a warning for each oddity. Raises `BenchmarkError`."""
    from fieldscope.eval.benchmarks.inquire_rerank import load_inquire_rerank

    return _warned(load_inquire_rerank(path, split))


def _warned(benchmark: Benchmark) -> Benchmark:
    for oddity in benchmark.oddities[:_SHOWN]:
        warn(oddity)
    if len(benchmark.oddities) > _SHOWN:
        warn(f"{benchmark.name} has {len(benchmark.oddities) - _SHOWN:,} more such oddities; they are not listed")
    return benchmark


def open_fullrank(request: BenchmarkRequest) -> Workload:
    """The benchmark "inquire-fullrank", whose argument is the path of its folder, with a note where relevant images
    have no embedding and a warning for each oddity. Raises `BenchmarkError`."""
    from fieldscope.eval.benchmarks.inquire_fullrank import load_inquire_fullrank
    from fieldscope.eval.benchmarks.inquire_models import PUBLISHED

    settings, path = request.settings, Path(request.argument)
    fullrank = load_inquire_fullrank(path, request.split, settings.encoder, embeddings=settings.embeddings)
    _warned(fullrank.benchmark)
    folder = fullrank.embeddings.folder
    own, published = _encoding_queries(settings, folder), PUBLISHED.get(folder.name)
    if own.encoder != settings.encoder:
        note(f"Queries are encoded with {own.encoder}, to be compared with the embeddings in {folder}.")
    if published is not None and published.caution:
        note(f"{folder.name}: {published.caution}.")
    if fullrank.missing:
        note(f"{fullrank.missing:,} relevant images have no embedding in {folder}; they count as missed")
    library, encoder = _searchable(fullrank, own) if request.search else (None, None)
    named = folder.name if published is not None and published.text_tower else own.encoder or BUNDLED
    benchmark = replace(fullrank.benchmark, prior=named)
    return Workload(benchmark, library, encoder, found=fullrank.ids, has_images=fullrank.has_images)


def require_embeddings(path: Path, chosen: Sequence[Settings]) -> None:
    """Check, before anything is searched, that each of several encoders can be loaded and has embeddings of its own.

    Raises `BenchmarkError` where embeddings are missing, or two encoders would search the same, and `ConfigError`
    where an encoder can't be loaded.
    """
    from fieldscope.eval.benchmarks.inquire_fullrank import embeddings_folder

    encoders: dict[Path, str] = {}
    for settings in chosen:
        folder = embeddings_folder(path, settings.encoder, settings.embeddings)
        name = settings.encoder or BUNDLED
        if (other := encoders.setdefault(folder.resolve(), name)) != name:
            raise BenchmarkError(
                f"{other} and {name} would both search {str(folder)!r}, which holds one model's vectors. Name a folder "
                "after each of them, or evaluate them one at a time with --embeddings."
            )
        load_encoder(_encoding_queries(settings, folder))


def _encoding_queries(settings: Settings, folder: Path) -> Settings:
    """The settings with the encoder of queries for the vectors in a folder. It may be named by INQUIRE's name for the
    folder; where none is named, it is the one that is known to have made the vectors."""
    from fieldscope.eval.benchmarks.embedding_folders import encoder_of
    from fieldscope.eval.benchmarks.inquire_models import query_encoder

    if settings.encoder is not None:
        is_folder = Path(settings.encoder).is_dir()
        return settings if is_folder else replace(settings, encoder=query_encoder(settings.encoder))
    return settings if settings.encoder_named else replace(settings, encoder=encoder_of(folder))


def _searchable(fullrank: Fullrank, settings: Settings) -> tuple[Library, str]:
    """The embeddings in FAISS, searched with the user's CLIP, and the fingerprint of both. Embeddings that take more
    memory than an index may are searched through a large index, which is built in the cache folder once.

    Raises `IndexMismatchError` where the CLIP is not the one that made them, `VocabularyError` where the bundled CLIP
    does not know the queries' words.
    """
    from fieldscope.retrieval.faiss_index import FaissIndex
    from fieldscope.retrieval.index_plan import index_memory, plan_index
    from fieldscope.retrieval.library import Library

    if settings.encoder is None:
        require_known_words((query.text for query in fullrank.benchmark.queries), "clip")
    encoder, embeddings = load_encoder(settings), fullrank.embeddings
    embeddings.require(encoder, settings.encoder or "bundled")
    plan = plan_index(len(embeddings), embeddings.dim, index_memory())
    if plan.kind != "flat":
        return _large(fullrank, encoder, settings, plan)
    digest = hashlib.sha256("\n".join(fullrank.ids).encode())
    with progress("reading the embeddings") as report:

        def blocks() -> Iterator[Vectors]:
            done = 0
            for block in embeddings.blocks():
                yield block
                digest.update(block.data)
                done += len(block)
                report(done, len(embeddings))

        index = FaissIndex.of_blocks(fullrank.ids, blocks(), embeddings.dim)
    return Library(index, encoder, {}, ids=fullrank.ids), fingerprint(
        {"clip": encoder.fingerprint, "embeddings": digest.hexdigest()}
    )


def _large(fullrank: Fullrank, encoder: Encoder, settings: Settings, plan: IndexPlan) -> tuple[Library, str]:
    """The embeddings through a large index. It is known by its files, whose contents are read once, while it is
    built."""
    from fieldscope.retrieval.index_plan import index_memory
    from fieldscope.retrieval.large_build import Owner, VectorSource, build_large
    from fieldscope.retrieval.large_index import LargeIndex
    from fieldscope.retrieval.library import Library

    embeddings = fullrank.embeddings
    source = fingerprint({"files": embeddings.files(), "ids": [len(fullrank.ids), fullrank.ids[0], fullrank.ids[-1]]})
    folder = cache_folder() / "large-indexes" / source[:16]
    queries = np.stack([encoder.encode_query(inputs_of(query)) for query in fullrank.benchmark.queries])
    with progress("building the index") as report:
        built = build_large(
            folder,
            VectorSource(fullrank.ids, embeddings.dim, source, embeddings.blocks, queries),
            plan,
            Owner(encoder.fingerprint, settings.encoder or BUNDLED),
            memory=index_memory(),
            progress=report,
        )
    note(recall_text(folder, built))
    index = LargeIndex(folder)
    library = Library(index, encoder, {}, ids=index.ids, sample=built.sample)
    return library, fingerprint({"clip": encoder.fingerprint, "embeddings": source, "index": built.recall.model_dump()})


def recall_text(folder: Path, built: LargeManifest) -> str:
    """What a large index is, in a sentence, with its measured recall."""
    measured = built.recall
    return (
        f"{built.count:,} vectors are searched through codes of {built.code_bytes} bytes in {folder}. Of the exact "
        f"{measured.k} nearest a search finds {measured.recall:.1%} (measured with {measured.queries} queries; "
        f"{measured.without_rescoring:.1%} without exact re-scoring)."
    )

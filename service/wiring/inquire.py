"""INQUIRE: from the hub, from files, or with its whole collection made searchable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.fingerprint import fingerprint
from fieldscope.core.paths import cache_folder
from fieldscope.service.wiring.benchmarks import BenchmarkRequest, Workload
from fieldscope.service.wiring.bundled import require_known_words
from fieldscope.service.wiring.feedback import note, progress, warn
from fieldscope.service.wiring.models import load_encoder
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.eval.benchmarks.inquire_fullrank import Fullrank
    from fieldscope.eval.types import Benchmark
    from fieldscope.retrieval.encoder import Vectors
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

    fullrank = load_inquire_fullrank(Path(request.argument), request.split, request.settings.encoder)
    _warned(fullrank.benchmark)
    if fullrank.missing:
        folder = fullrank.embeddings.folder
        note(f"{fullrank.missing:,} relevant images have no embedding in {folder}; they count as missed")
    library, encoder = _searchable(fullrank, request.settings) if request.search else (None, None)
    return Workload(fullrank.benchmark, library, encoder, found=fullrank.ids, has_images=fullrank.has_images)


def _searchable(fullrank: Fullrank, settings: Settings) -> tuple[Library, str]:
    """The embeddings in FAISS, searched with the user's CLIP, and the fingerprint of both.

    Raises `IndexMismatchError` where the CLIP is not the one that made them, `VocabularyError` where the bundled CLIP
    does not know the queries' words.
    """
    from fieldscope.retrieval.faiss_index import FaissIndex
    from fieldscope.retrieval.library import Library

    if settings.encoder is None:
        require_known_words((query.text for query in fullrank.benchmark.queries), "clip")
    encoder, embeddings = load_encoder(settings), fullrank.embeddings
    embeddings.require(encoder, settings.encoder or "bundled")
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

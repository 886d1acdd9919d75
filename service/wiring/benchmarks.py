"""Benchmarks by the name or path that a user gives, each with what finds its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import BenchmarkError
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.resources import Retriever
    from fieldscope.eval.queries import Selection
    from fieldscope.eval.runs.replay import Recording
    from fieldscope.eval.types import Benchmark

NAMES = ("fieldnotes", "fieldnotes-rerank", "fieldnotes-composed", "fieldnotes-dialogue")


HUB = "evendrow/INQUIRE-Rerank"
"""The data set on the Hugging Face hub that is fetched by its name."""


@dataclass(frozen=True)
class Workload:
    """A benchmark and, for full retrieval, what finds its candidates.

    `encoder` is the fingerprint of the first stage's CLIP where this process ran it; `own` says whether the pictures
    are FieldNotes' by construction. `found` are the ids of all images where candidates are searched for in a user's
    collection, and `has_images` whether its image files are there: embeddings alone serve strategies that do not look.
    A `recording` answers in the place of models.
    """

    benchmark: Benchmark
    retriever: Retriever | None = None
    encoder: str | None = None
    own: bool = False
    found: Sequence[str] = ()
    has_images: bool = True
    recording: Recording | None = None


def open_workload(name: str, split: str | None, settings: Settings, *, search: bool = True) -> Workload:
    """One of `NAMES` (all but `fieldnotes-rerank` are full retrieval), `HUB`, or a path: Parquet files in
    INQUIRE-Rerank's shape, or a folder of INQUIRE-Fullrank.

    Without `split` the test split is taken. Without `search` a user's embeddings are not read, and nothing finds
    candidates. Raises `BenchmarkError` where there is no such benchmark or split.
    """
    from fieldscope.service.wiring.fieldnotes import rerank_benchmark, retrieval_benchmark
    from fieldscope.service.wiring.inquire import hub_benchmark, open_fullrank, open_rerank, searchable

    if name == "fieldnotes-rerank":
        benchmark, encoder = rerank_benchmark(split or "test", settings)
        return Workload(benchmark, None, encoder.fingerprint, own=True)
    if name in NAMES:
        task = name.removeprefix("fieldnotes").removeprefix("-")
        benchmark, library = retrieval_benchmark(split or "test", settings, task)
        return Workload(benchmark, library, library.encoder.fingerprint, own=True)
    path = Path(name)
    if not path.exists():
        if name == HUB:
            return Workload(hub_benchmark(split))
        from fieldscope.core.validation import unknown_name

        raise BenchmarkError(
            f"{unknown_name('benchmark', name, (*NAMES, HUB))}; or give the path of Parquet files in INQUIRE-Rerank's "
            "shape, or of a folder of INQUIRE-Fullrank"
        )
    from fieldscope.eval.benchmarks.inquire_fullrank import is_fullrank

    if is_fullrank(path):
        fullrank = open_fullrank(path, split, settings)
        workload = Workload(fullrank.benchmark, found=fullrank.ids, has_images=fullrank.has_images)
        if not search:
            return workload
        retriever, searched = searchable(fullrank, settings)
        return replace(workload, retriever=retriever, encoder=searched)
    return Workload(open_rerank(path, split))


def selected(workload: Workload, selection: Selection) -> Workload:
    """The workload with the chosen queries only. Raises `ConfigError` for lists that name no query."""
    benchmark = workload.benchmark
    return replace(workload, benchmark=replace(benchmark, queries=selection.of(benchmark.queries)))

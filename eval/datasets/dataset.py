"""A data set as it was read: a benchmark, and which images each of its queries is searched in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection


@dataclass(frozen=True)
class Dataset:
    """A benchmark of full retrieval. `images` are all of its pictures, reference images among them; `galleries` are the
    ids that are searched, and `gallery_of` says which of them a query is searched in: every query in the only one,
    where that is empty."""

    benchmark: Benchmark
    images: FilesCollection
    galleries: Mapping[str, tuple[str, ...]]
    gallery_of: Mapping[str, str] = field(default_factory=dict)


def file_split(split: str | None, default: str) -> str:
    """The split as the published files spell it: `val` for validation."""
    name = canonical(split or default)
    return "val" if name == "validation" else name

"""A data set as it was read: a benchmark, and which images each of its queries is searched in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import Collection
from fieldscope.retrieval.index import DEFAULT_INDEX


@dataclass(frozen=True)
class Dataset:
    """A benchmark of full retrieval. `images` are all of its pictures, or documents of any kind, reference images among
    them; `galleries` are the ids that are searched, and `gallery_of` says which of them a query is searched in: every
    query in the only one, where that is empty. `indexed` are the documents whose vectors are kept, all `images` where
    it is None: other reference images are encoded when their query is searched. `index_kind` is the registered index
    that holds them."""

    benchmark: Benchmark
    images: Collection
    galleries: Mapping[str, tuple[str, ...]]
    gallery_of: Mapping[str, str] = field(default_factory=dict)
    indexed: Collection | None = None
    index_kind: str = DEFAULT_INDEX


def file_split(split: str | None, default: str) -> str:
    """The split as the published files spell it: `val` for validation."""
    name = canonical(split or default)
    return "val" if name == "validation" else name

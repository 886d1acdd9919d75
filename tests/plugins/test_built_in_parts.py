"""What comes with Fieldscope is registered like any other package's parts, and every entry point leads somewhere."""

from __future__ import annotations

import pytest

from fieldscope.agent.lmm.backends import LMMS
from fieldscope.cache.store import STORES
from fieldscope.core.registry import Registry
from fieldscope.retrieval.encoder import ENCODERS
from fieldscope.retrieval.index import INDEXES
from fieldscope.retrieval.scorer import SCORERS
from fieldscope.service.wiring.benchmarks import BENCHMARKS, HUB, NAMES

BUILT_IN = [
    (LMMS, {"bundled", "local", "openai"}),
    (ENCODERS, {"bundled", "open_clip", "path", "sentence-transformers"}),
    (SCORERS, {"hf", "openai", "path", "similarity"}),
    (INDEXES, {"faiss", "numpy"}),
    (STORES, {"memory", "sqlite"}),
    (BENCHMARKS, {*NAMES, HUB, "inquire-rerank", "inquire-fullrank"}),
]


@pytest.mark.parametrize(("registry", "names"), BUILT_IN, ids=lambda value: getattr(value, "group", ""))
def test_every_built_in_part_loads(registry: Registry[object], names: set[str]) -> None:
    assert names <= set(registry.names())
    assert all(callable(registry.load(name)) for name in names)

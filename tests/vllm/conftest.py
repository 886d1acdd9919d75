"""One real vLLM server with the bundled LMM for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldscope.eval.types import Benchmark
from fieldscope.fieldnotes.vocabulary import MODELS
from fieldscope.service.wiring.fieldnotes import rerank_benchmark
from fieldscope.service.wiring.settings import Settings
from tests.vllm.server import Server, serving


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The checkpoint that is served, and loaded in process beside it."""
    return MODELS / "lmm"


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(checkpoint, tmp_path_factory.mktemp("vllm") / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def rerank_test(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """FieldNotes-Rerank's test split, drawn and encoded into a cache folder of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FIELDSCOPE_CACHE", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        benchmark, _ = rerank_benchmark("test", Settings())
    return benchmark

"""One real vLLM server with the bundled LMM for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldnotes.vocabulary import MODELS
from tests.vllm.server import Server, serving


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The checkpoint that is served, and loaded in process beside it."""
    return MODELS / "lmm"


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(checkpoint, tmp_path_factory.mktemp("vllm") / "server.log") as server:
        yield server

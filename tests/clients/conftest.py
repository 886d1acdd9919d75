"""One service with the bundled models for all clients. `FIELDSCOPE_CACHE` names a cache folder that is warm already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.served import Served, serving

_CACHE = os.environ.get("FIELDSCOPE_CACHE")  # before a test's own folders take its place


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    cache = Path(_CACHE) if _CACHE else folder / "cache"
    with serving(cache, folder / "log.txt", "--data", str(folder / "data")) as made:
        yield made

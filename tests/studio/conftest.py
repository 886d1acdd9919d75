"""One Studio server for all of these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studio.server import Studio, serving

_CACHE = os.environ.get("FIELDSCOPE_CACHE")  # a warm cache folder, read before each test gets a folder of its own


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    with serving(folder, Path(_CACHE) if _CACHE else folder / "cache") as studio:
        yield studio

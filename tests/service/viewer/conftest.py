"""Shelves that are made once, as copies that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.service.viewer import shelves
from tests.service.viewer.shelves import Made


@pytest.fixture(scope="session")
def small_shelf(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """To be read only."""
    return shelves.small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def hostile_shelf(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """To be read only."""
    return shelves.hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def small(small_shelf: Made, tmp_path: Path) -> Made:
    """Runs of a test's own; the pictures are shared."""
    root = tmp_path / "runs"
    shutil.copytree(small_shelf.root, root)
    return Made(root, small_shelf.images, small_shelf.store)

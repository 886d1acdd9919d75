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
def few_shelf(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """To be read only: two queries under two strategies, for tests that want every page."""
    return shelves.small(tmp_path_factory.mktemp("few"), queries=2, strategies=("clip", "agent"))


@pytest.fixture(scope="session")
def hostile_shelf(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """To be read only."""
    return shelves.hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def small(small_shelf: Made, tmp_path: Path) -> Made:
    """Runs of a test's own; the pictures are shared."""
    return _copy(small_shelf, tmp_path)


@pytest.fixture
def few(few_shelf: Made, tmp_path: Path) -> Made:
    """As `small`, and with a fifth of its pages."""
    return _copy(few_shelf, tmp_path)


def _copy(made: Made, folder: Path) -> Made:
    shutil.copytree(made.root, folder / "runs")
    return Made(folder / "runs", made.images, made.store)

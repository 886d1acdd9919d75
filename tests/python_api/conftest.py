"""FieldNotes' validation pictures, drawn once for all tests here, and a dozen of them as a user's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the validation pictures in it, and `pictures` beside it, which the README's command wrote:
    once for all workers, which have one parent folder."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "drawn"
    environment = {**os.environ, "FIELDSCOPE_CACHE": str(folder / "cache")}
    line = [sys.executable, "-m", "fieldscope", "demo", "--pictures", "pictures"]
    with folder.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not (folder / "pictures").is_dir():
            folder.mkdir(exist_ok=True)
            subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def pictures(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten pictures that the bundled models know, in an empty working folder; what is remembered stays in this test."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "fieldnotes").symlink_to(drawn / "cache" / "fieldnotes")
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted((drawn / "pictures").iterdir())[14:24]:
        shutil.copyfile(path, folder / path.name)
    return folder

"""Eight pictures, the command line's rankings of them, and a service that has them as a collection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fieldscope
from tests.clients.served import FIELDSCOPE, Served, environment, serving

QUERY = "one orange crab on a street"
QUERY_ID = "t000"  # in FieldNotes' test split
OTHERS = 6  # pictures beside two that match
COLLECTION = "photos"

_CACHE = os.environ.get("FIELDSCOPE_CACHE")  # before a test's own folders take its place


@dataclass(frozen=True)
class Expected:
    """The pictures' folder, their index, and the command line's `--json` of both ways to rank them."""

    cache: Path
    pictures: Path
    index: Path
    reranked: list[dict[str, Any]]
    found: list[dict[str, Any]]

    @property
    def paths(self) -> list[Path]:
        """The pictures in the order of their names."""
        return sorted(self.pictures.iterdir())

    @property
    def order(self) -> list[str]:
        """File names, best first."""
        return names(self.reranked)

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons that the command line printed, by file name."""
        return {entry["image"]: entry["reason"] for entry in self.reranked if entry["reason"]}


def names(ranking: Sequence[dict[str, Any]]) -> list[str]:
    return [entry["image"] for entry in ranking]


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    from fieldscope.fieldnotes.collection import read_split
    from fieldscope.service.wiring.fieldnotes import pictures

    folder = tmp_path_factory.mktemp("adaptors")
    cache = Path(_CACHE) if _CACHE else folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDSCOPE_CACHE", str(cache))
        drawn = pictures("test")
    chosen = folder / "pictures"
    chosen.mkdir()
    matches = sorted(read_split("test").relevant[QUERY_ID])[:2]
    for image_id in (*drawn.ids()[:: len(drawn.ids()) // OTHERS][:OTHERS], *matches):
        shutil.copy(drawn.path(image_id), chosen)
    index = folder / "index"
    _fieldscope(cache, "index", str(chosen), "--out", str(index))
    reranked = _fieldscope(cache, "rerank", "--query", QUERY, "--images", str(chosen), "--json")
    found = _fieldscope(cache, "search", "--index", str(index), "--query", QUERY, "--rerank", "--json")
    made = Expected(cache, chosen, index, json.loads(reranked)["ranking"], json.loads(found)["ranking"])
    assert {Path(name).stem.lstrip("0") for name in made.order[:2]} == set(matches)
    assert made.reasons
    return made


@pytest.fixture(scope="session")
def served(expected: Expected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    options = ("--data", str(folder / "data"), "--collection", f"{COLLECTION}={expected.pictures}")
    with serving(expected.cache, folder / "log.txt", *options) as made:
        yield made


@pytest.fixture(scope="session")
def loaded(expected: Expected) -> Iterator[fieldscope.Reranker]:
    """The models in this process, loaded once."""
    with fieldscope.Reranker(cache_file=expected.cache / "responses.sqlite") as reranker:
        yield reranker


@pytest.fixture
def reranker(loaded: fieldscope.Reranker, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> fieldscope.Reranker:
    monkeypatch.setenv("FIELDSCOPE_CACHE", str(expected.cache))
    return loaded


def _fieldscope(cache: Path, *words: str) -> bytes:
    done = subprocess.run([str(FIELDSCOPE), *words], env=environment(cache), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout

"""Images encoded by two workers have the vectors of one process, and a worker that dies costs its block."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fieldscope.retrieval.manifest import read_index
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.bundled import open_encoder
from tests.ray.conftest import on_ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def index(*words: object) -> str:
    done = CliRunner().invoke(cli, ["index", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return done.stdout


def tiles_in(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "tiles.sqlite")) as database:
        return database.execute("select * from tiles order by image").fetchall()


def test_two_workers_make_the_vectors_of_one_process(cluster: str, pictures: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    said = index(pictures, "-o", here, "--tiles")
    words = ("index", pictures, "-o", there, "--tiles", "--ray", cluster, "--json")
    assert on_ray("-m", "fieldscope", *words) == said.replace(str(here), str(there))
    (one, expected), (other, vectors) = (read_index(folder, open_encoder("")) for folder in (here, there))
    assert one.ids == other.ids
    np.testing.assert_array_equal(vectors, expected)
    assert tiles_in(there) == tiles_in(here)


def test_a_worker_that_dies_costs_its_block(cluster: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = on_ray("-m", "tests.ray.dying", cluster, log).split()
    assert sorted(done, key=int) == [str(number) for number in range(320)]
    assert sorted(log.read_text().split(), key=int) == ["0", "64", "128", "128", "192", "256"]

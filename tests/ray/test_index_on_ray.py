"""Images encoded by two workers have the vectors of one process, and a worker that dies costs its block."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fieldscope.retrieval.manifest import read_index
from fieldscope.service.cli.main import cli
from fieldscope.service.wiring.bundled import open_encoder
from fieldscope.service.wiring.cluster import Done, connected

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
    assert index(pictures, "-o", there, "--tiles", "--ray", cluster) == said.replace(str(here), str(there))
    (one, expected), (other, vectors) = (read_index(folder, open_encoder("")) for folder in (here, there))
    assert one.ids == other.ids
    np.testing.assert_array_equal(vectors, expected)
    assert tiles_in(there) == tiles_in(here)


class Dying:
    """Work during which a worker dies, once."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, block: list[str]) -> list[Done]:
        with self.log.open("a") as log:
            log.write(f"{block[0]}\n")
        if block[0] == "128" and self.log.read_text().count("128\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return [Done(image_id, image_id.encode()) for image_id in block]


def test_a_worker_that_dies_costs_its_block(cluster: str, tmp_path: Path) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not have the tests
    log, ids = tmp_path / "log", [str(number) for number in range(320)]
    with connected(cluster) as joined:
        done = [one for block in joined.each_block(ids, Dying, log) for one in block]
    assert sorted(done) == sorted(Done(image_id, image_id.encode()) for image_id in ids)
    begun = log.read_text().split()
    assert sorted(begun, key=int) == ["0", "64", "128", "128", "192", "256"]

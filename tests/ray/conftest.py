"""A Ray cluster of two nodes on this machine, with a worker each, and pictures for it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene

_STORE_BYTES = 100_000_000


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "node_ip_address": "127.0.0.1"}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    nodes.add_node(**node)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures, a file that is none, and one that is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = random.Random(0)
    for number in range(100):
        render(random_scene(chance)).save(folder / f"{number:03}.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:100])
    return folder

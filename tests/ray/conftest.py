"""A Ray cluster of two nodes on this machine, with a worker each, and pictures for it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene

_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus", "1")
_LOCAL = ("--node-ip-address", "127.0.0.1", "--object-store-memory", "100000000")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address. The nodes are processes of their own, as on machines of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    head = ("--head", "--port", str(port), "--include-dashboard", "false")
    nodes = [_started(*head), _started("--address", address)]
    yield address
    for node in reversed(nodes):
        node.terminate()
        node.wait()


def _started(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    command = [*_RAY, *_LOCAL, *words]
    node = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in node.stdout or ():
        said.append(line)
        if "Ray runtime started" in line:
            return node
    raise RuntimeError("".join(said))


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

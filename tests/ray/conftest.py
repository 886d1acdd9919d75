"""A Ray cluster of two nodes on this machine, with a worker each, and pictures for it."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fieldscope.fieldnotes.render import render
from fieldscope.fieldnotes.sampling import random_scene

ROOT = Path(__file__).parents[2]
_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus", "1")
_LOCAL = ("--object-store-memory", "100000000")
_STARTED, _ADDRESS = "Ray runtime started", re.compile(r"Local node IP: (\S+)")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address. The nodes are processes of their own, as on machines of their own."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with _node("--head", "--port", str(port), "--include-dashboard", "false") as said:
        found = _ADDRESS.search(said)
        assert found is not None, said
        address = f"{found[1]}:{port}"
        with _node("--address", address):
            yield address


@contextmanager
def _node(*words: str) -> Iterator[str]:
    """A node while it runs, and what it said when it started."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    command = [*_RAY, *_LOCAL, *words]
    said = ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as node:
        for line in node.stdout or ():
            said += line
            if _STARTED in line:
                break
        assert _STARTED in said, said
        yield said
        node.terminate()


def on_ray(*words: object) -> str:
    """What a command prints, run in a process that may reach Ray's nodes: they listen on this machine's own address."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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

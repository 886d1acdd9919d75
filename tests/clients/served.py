"""A service in a process of its own, as users run it, and the command line beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

ROOT = Path(__file__).resolve().parents[2]
FIELDSCOPE = Path(os.environ.get("FIELDSCOPE", ROOT / ".venv" / "bin" / "fieldscope"))
"""The program under test; the tests themselves run in the clients' environment."""

PATIENCE = 400.0
"""Seconds for the first start, which draws and encodes FieldNotes' pictures."""


@dataclass(frozen=True)
class Served:
    """Where it listens, its cache folder, and what it printed."""

    url: str
    cache: Path
    log: Path

    @property
    def pictures(self) -> Path:
        """FieldNotes' test collection, which the service calls `fieldnotes`."""
        return self.cache / "fieldnotes" / "test"


@contextmanager
def serving(cache: Path, log: Path, *options: str) -> Iterator[Served]:
    """`fieldscope serve` with the bundled models on a free port, until the block ends."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(FIELDSCOPE), "serve", "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(cache), cwd=log.parent)
        try:
            _wait(process, f"http://127.0.0.1:{port}/readyz", log)
            yield Served(f"http://127.0.0.1:{port}", cache, log)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def rerank(served: Served, query: str, folder: Path, *options: str) -> list[str]:
    """The file names of a folder as the command line ranks them, best first."""
    command = [str(FIELDSCOPE), "rerank", "--query", query, "--images", str(folder), "--json", *options]
    done = subprocess.run(command, env=environment(served.cache), capture_output=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return [entry["image"] for entry in json.loads(done.stdout)["ranking"]]


def environment(cache: Path) -> Mapping[str, str]:
    """The cache folder, and nothing that could send a client or a service elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIELDSCOPE_")}
    return kept | {"FIELDSCOPE_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE"}


def copies(served: Served, names: Sequence[str], folder: Path) -> Path:
    """Some of the pictures in a folder of their own."""
    folder.mkdir()
    for name in names:
        shutil.copy(served.pictures / name, folder / name)
    return folder


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended at once:\n{log.read_text(errors='replace')}")
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise RuntimeError(f"the service was not ready in {PATIENCE:g} s:\n{log.read_text(errors='replace')}")

"""A service in a separate process, for the checks that measure it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PATIENCE = 60.0


@dataclass(frozen=True)
class Running:
    """Its address (`host:port`) and its process id."""

    address: str
    pid: int


@contextmanager
def running(*options: object) -> Iterator[Running]:
    """`fieldscope serve` with the bundled models on a free port, until the block ends. Raises `SystemExit` if it
    does not start, or ends with an error."""
    command = [sys.executable, "-m", "fieldscope", "serve", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "http://" not in line:
                raise SystemExit("the service did not start; run `fieldscope serve` to see why")
            yield Running(line.partition("http://")[2].split()[0], process.pid)
        finally:
            process.terminate()
            try:
                status = process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    if status != 0:
        raise SystemExit(f"the service ended with status {status}")

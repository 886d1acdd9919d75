"""What the tests that kill a run have in common: what it asked, what it committed, and when to strike."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds; a busy machine starts Python slowly

Start = Callable[[Path, Path], "subprocess.Popen[bytes]"]
"""Starts a run in a folder, which writes the key of every call it makes to a file."""


def run_script(script: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def kill_again_and_again(start: Start, folder: Path, kills: int, fewest: int, most: int) -> set[str]:
    """Kill the run in `folder` so many times, each after `fewest` to `most` calls, then let it end; all its calls."""
    chance = random.Random()
    ever_asked: set[str] = set()
    deaths = 0
    for attempt in range(kills + 1):
        before = committed(folder / "cache.sqlite")
        asked = folder / f"asked-{attempt}"
        process = start(folder, asked)
        if attempt < kills:
            wait_for_calls(process, asked, chance.randint(fewest, most))
            time.sleep(chance.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
        deaths += process.returncode != 0
        calls = lines(asked)
        assert not before & set(calls), "a committed call was asked again"
        assert len(set(calls)) == len(calls), "a call was asked twice at once"
        ever_asked |= set(calls)
    assert process.returncode == 0
    assert deaths >= 1
    return ever_asked


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def committed(store: Path) -> set[str]:
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'entries'").fetchall()
        return {key for (key,) in connection.execute("SELECT key FROM entries")} if tables else set()


def wait_for_calls(process: subprocess.Popen[bytes], asked: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and len(lines(asked)) < count and time.monotonic() < deadline:
        time.sleep(0.002)

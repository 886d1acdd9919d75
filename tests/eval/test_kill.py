"""`kill -9` at random moments loses nothing."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.types import RerankResult

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("killable_run.py")
KILLS = 5
PATIENCE = 300.0  # seconds; a busy machine starts Python slowly


def start(parquet: Path, folder: Path, asked: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(parquet), str(folder / "cache.sqlite"), str(folder / "out"), str(asked)]
    return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def committed(store: Path) -> set[str]:
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'entries'").fetchall()
        return {key for (key,) in connection.execute("SELECT key FROM entries")} if tables else set()


def rankings(out: Path) -> dict[str, dict[str, float | None]]:
    """Query id -> image id -> P(match), in the order of the ranking."""
    results = [RerankResult.model_validate_json(line) for line in lines(out / "yes-no-fused" / "results.jsonl")]
    return {result.query_id: {found.image_id: found.p_match for found in result.ranking} for result in results}


@pytest.mark.timeout(3 * PATIENCE)
def test_killing_the_process_again_and_again_loses_nothing(rows: Any, write_parquet: Any, tmp_path: Path) -> None:
    chance = random.Random()
    parquet = write_parquet(rows)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    uninterrupted = start(parquet, whole, whole / "asked")

    ever_asked: set[str] = set()
    deaths = 0
    for attempt in range(KILLS + 1):
        before = committed(killed / "cache.sqlite")
        asked = killed / f"asked-{attempt}"
        process = start(parquet, killed, asked)
        if attempt < KILLS:
            wait_for_calls(process, asked, chance.randint(0, 9))
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
    assert uninterrupted.wait(timeout=PATIENCE) == 0
    assert ever_asked == set(lines(whole / "asked")) == committed(killed / "cache.sqlite")
    found, expected = rankings(killed / "out"), rankings(whole / "out")
    assert len(expected) == 5
    assert {query: list(p) for query, p in found.items()} == {query: list(p) for query, p in expected.items()}
    for query, p_match in expected.items():
        assert found[query] == pytest.approx(p_match, abs=1e-5)


def wait_for_calls(process: subprocess.Popen[bytes], asked: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and len(lines(asked)) < count and time.monotonic() < deadline:
        time.sleep(0.002)

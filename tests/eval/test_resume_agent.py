"""`kill -9` at random moments of the whole agent: what was asked is never asked again, and the results are the same."""

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
from eval.finished import read_results
from tests.agent.oracle import paint
from tests.eval.killable_agent import QUERIES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("killable_agent.py")
PATIENCE = 300.0  # seconds; a busy machine starts Python slowly
OF_THE_PROCESS = {"cached", "latency", "at"}  # what may differ between two runs


@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize(
    ("strategy", "max_calls", "kills", "latest"),
    [("agent", 0, 3, 40), ("agent", 12, 2, 12), ("pairwise", 7, 2, 8)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, strategy: str, max_calls: int, kills: int, latest: int
) -> None:
    """It is killed `kills` times, each after up to `latest` further calls."""
    chance = random.Random()
    whole, killed, pictures = (tmp_path / name for name in ("whole", "killed", "pictures"))
    for folder in (whole, killed, pictures):
        folder.mkdir()
    paint(pictures)
    undisturbed = start(strategy, max_calls, pictures, whole, whole / "asked")

    ever_asked: set[str] = set()
    deaths = 0
    for attempt in range(kills + 1):
        before = committed(killed / "cache.sqlite")
        asked = killed / f"asked-{attempt}"
        process = start(strategy, max_calls, pictures, killed, asked)
        if attempt < kills:
            wait_for_calls(process, asked, chance.randint(1, latest))
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
    _, errors = undisturbed.communicate(timeout=PATIENCE)
    assert undisturbed.returncode == 0, errors.decode()
    assert ever_asked == set(lines(whole / "asked")) == committed(killed / "cache.sqlite")
    found, expected = (read_results(folder / "out" / strategy) for folder in (killed, whole))
    assert len(expected) == QUERIES
    assert found.keys() == expected.keys()
    for query_id, result in expected.items():
        assert_alike(told(found[query_id]), told(result), query_id)
        assert (len(result.asked) == max_calls and result.ended is not None) == (max_calls > 0)
    if strategy == "agent" and not max_calls:
        assert all(result.verdicts and result.reasons for result in expected.values())
        assert any(result.comparisons for result in expected.values())


def told(result: RerankResult) -> Any:
    """The whole result with its trace, without what is the process' own."""
    return _without(result.model_dump(mode="json"))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in OF_THE_PROCESS}
    return [_without(part) for part in value] if isinstance(value, list) else value


def assert_alike(found: Any, expected: Any, where: str) -> None:
    """The same keys, words and counts in the same order, and the same numbers to 1e-9."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and list(found) == list(expected), where
        for key, value in expected.items():
            assert_alike(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), where
        for at, value in enumerate(expected):
            assert_alike(found[at], value, f"{where}.{at}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-9), where
    else:
        assert found == expected, where


def start(strategy: str, max_calls: int, pictures: Path, folder: Path, asked: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), strategy, str(max_calls), str(pictures), str(folder), str(asked)]
    return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


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

"""One writer that commits what waits together, off the event loop."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry, MemoryStore
from fieldscope.cache.writer import GroupWriter
from fieldscope.core.errors import CacheError

ROOT = Path(__file__).parents[2]


def entry(key: str) -> Entry:
    return Entry(key, "{}", "x" * 1000, '{"model":"m"}')


class Held(MemoryStore):
    """Holds each commit until it is let go; notes the groups."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = threading.Event(), threading.Event()
        self.groups: list[list[str]] = []

    def put_all(self, entries: Iterable[Entry], replace: bool = False) -> int:
        group = list(entries)
        self.groups.append([each.key for each in group])
        self.begun.set()
        assert self.gate.wait(60)
        return super().put_all(group, replace)


async def test_what_waits_is_committed_together() -> None:
    store = Held()
    writer = GroupWriter(store)
    first = asyncio.create_task(writer.put(entry("first")))
    await asyncio.to_thread(store.begun.wait, 60)
    others = [asyncio.create_task(writer.put(entry(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    assert not first.done() and not any(other.done() for other in others), "none is acknowledged before it is kept"
    store.gate.set()
    await asyncio.gather(first, *others)
    assert store.groups == [["first"], [str(n) for n in range(50)]]
    await writer.aclose()


async def test_the_loop_goes_on_while_another_process_keeps_the_file_locked(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    store = SqliteStore(path, busy_timeout=60)
    store.put(entry("before"))
    writer = GroupWriter(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(writer.put(entry("after")))
    while not writer._thread._threads:
        await asyncio.sleep(0)
    for _ in range(1000):  # turns of the loop, which would stand still
        await asyncio.sleep(0)
        assert store.get("before") == entry("before"), "a reader waits neither for the other process nor for the writer"
    assert not waiting.done() and store.get("after") is None
    other.execute("COMMIT")
    await waiting
    assert store.get("after") == entry("after")
    other.close()
    await writer.aclose()
    store.close()


async def test_an_error_reaches_all_who_wait_and_the_next_are_kept(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    writer = GroupWriter(store)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    failed = await asyncio.gather(*(writer.put(entry(str(n))) for n in range(20)), return_exceptions=True)
    assert all(isinstance(error, CacheError) for error in failed)
    assert "disk is full: free some space and rerun the command" in str(failed[0])
    assert store.stats().entries == 0, "all or nothing"
    store._connection.execute("PRAGMA max_page_count = 1000000")
    await asyncio.gather(*(writer.put(entry(str(n))) for n in range(20)))
    assert store.stats().entries == 20 and store.faults() == []
    await writer.aclose()
    store.close()


async def test_who_does_not_wait_any_more_harms_nobody() -> None:
    store = Held()
    writer = GroupWriter(store)
    gone, stays = (asyncio.create_task(writer.put(entry(key))) for key in ("gone", "stays"))
    await asyncio.to_thread(store.begun.wait, 60)
    gone.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    await stays
    assert store.get("gone") is not None, "what was paid for is kept"
    await writer.aclose()


KILLED = """
import asyncio, sys
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry
from fieldscope.cache.writer import GroupWriter

async def put(writer, n):
    await writer.put(Entry(str(n), "{}", "x" * 2000, '{"model":"m"}'))
    print(n, flush=True)

async def main():
    writer = GroupWriter(SqliteStore(sys.argv[1]))
    for start in range(0, 10 ** 9, 40):
        await asyncio.gather(*(put(writer, n) for n in range(start, start + 40)))

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 100, 1500])
def test_what_a_killed_writer_acknowledged_is_there(tmp_path: Path, after: int) -> None:
    path = tmp_path / "cache.sqlite"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = {int(writer.stdout.readline()) for _ in range(after)}
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged |= {int(line) for line in writer.stdout if line.endswith("\n")}
    store = SqliteStore(path)
    assert all(store.get(str(n)) == Entry(str(n), "{}", "x" * 2000, '{"model":"m"}') for n in acknowledged)
    assert store.stats().entries - len(acknowledged) in range(81), "at most the groups that were on their way"
    assert store.faults() == []
    store.close()

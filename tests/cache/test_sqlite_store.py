import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from fieldscope.cache.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore
from fieldscope.cache.store import Entry
from fieldscope.core.errors import CacheError
from tests.waiting import PATIENCE, released

ROOT = Path(__file__).parents[2]


def entry(key: str, response: str = "{}") -> Entry:
    return Entry(key, "{}", response, '{"model":"m"}')


def write_many(path: Path, writer: int, count: int) -> int:
    store = SqliteStore(path)
    for n in range(count):
        store.put(entry(f"{writer}-{n}", "x" * 500))
        store.put(entry(f"shared-{n}", str(writer)))
    store.close()
    return writer


def test_entries_outlive_the_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "deep" / "down" / "cache.sqlite")
    store.put(entry("a", "kept"))
    store.close()
    again = SqliteStore(tmp_path / "deep" / "down" / "cache.sqlite")
    assert again.get("a") == entry("a", "kept")
    again.close()


def test_several_processes_open_and_write_a_new_file_at_once(tmp_path: Path) -> None:
    path, writers, count = tmp_path / "cache.sqlite", 4, 50
    with ProcessPoolExecutor(writers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(write_many, [path] * writers, range(writers), [count] * writers))
    store = SqliteStore(path)
    assert store.stats().entries == writers * count + count
    firsts = {store.get(f"shared-{n}").response for n in range(count)}  # type: ignore[union-attr]
    assert firsts <= {str(writer) for writer in range(writers)}
    store.close()


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    threads = [threading.Thread(target=lambda w=w: [store.put(entry(f"{w}-{n}")) for n in range(50)]) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.stats().entries == 200
    store.close()


KILLED_WRITER = """
import sys
from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import Entry
store = SqliteStore(sys.argv[1])
n = 0
while True:
    store.put(Entry(str(n), "{}", "x" * 2000, '{"model":"m"}'))
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("after", [1, 40, 700])
def test_what_a_killed_writer_had_committed_is_there(tmp_path: Path, after: int) -> None:
    path = tmp_path / "cache.sqlite"
    command = [sys.executable, "-c", KILLED_WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    assert writer.returncode == -signal.SIGKILL
    store = SqliteStore(path)
    assert all(store.get(str(n)) == Entry(str(n), "{}", "x" * 2000, '{"model":"m"}') for n in range(last + 1))
    assert store.stats().entries in {last + 1, last + 2}, "committed, but killed before it could say so"
    store.put(entry("next"))
    store.close()


def test_a_reader_does_not_wait_for_a_writer_and_a_writer_waits_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    writer, reader = SqliteStore(path, busy_timeout=PATIENCE), SqliteStore(path, busy_timeout=0)
    writer.put(entry("a"))
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert reader.get("a") == entry("a")
    released(lambda: writer.put(entry("b")), lambda: blocker.execute("COMMIT"))
    assert reader.get("b") == entry("b")
    for each in (writer, reader, blocker):
        each.close()


def test_a_new_file_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    store = released(lambda: SqliteStore(path, busy_timeout=PATIENCE), lambda: blocker.execute("ROLLBACK"))
    store.put(entry("a"))
    assert store.get("a") == entry("a")
    store.close()
    blocker.close()


def test_a_writer_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    store = SqliteStore(path, busy_timeout=0.05)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(CacheError, match=r"cache\.sqlite: database is locked"):
        store.put(entry("a"))
    blocker.close()
    store.put(entry("a"))
    store.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, not a cache\n" * 100)
    with pytest.raises(CacheError, match=r"notes\.txt is damaged or no cache.*move it away or name another"):
        SqliteStore(path)
    assert path.read_text() == "my notes, not a cache\n" * 100


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE entries (key)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="another program's database"):
        SqliteStore(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["other.sqlite"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(CacheError, match=f"format {SCHEMA_VERSION + 1}, this Fieldscope reads {SCHEMA_VERSION}"):
        SqliteStore(path)


def test_a_damaged_cache_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    store = SqliteStore(path)
    for n in range(200):
        store.put(entry(f"{n:04}", "x" * 500))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    damaged = SqliteStore(path)
    with pytest.raises(CacheError, match="damaged"):
        damaged.get("0100")
    damaged.close()


def test_a_folder_in_its_place_and_a_file_in_its_way(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="unable to open"):
        SqliteStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="can't create the cache's folder"):
        SqliteStore(tmp_path / "file" / "cache.sqlite")


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    store.close()
    with pytest.raises(CacheError, match="is closed"):
        store.get("a")


def test_the_file_is_marked_and_logs_ahead(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    SqliteStore(path).close()
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


@pytest.fixture
def nobody_writes() -> Iterator[Path]:
    """A folder; once it is made read-only (`chmod`), this process may not write to it, also where root runs it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(0o755)


def make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.getuid() == 0:
        os.seteuid(65534)
        monkeypatch.setattr(os, "access", lambda *_: False)  # which goes by the real user


def test_a_file_that_cannot_be_written_can_be_read(nobody_writes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nobody_writes / "cache.sqlite"
    store = SqliteStore(path)
    store.put(entry("a", "kept"))
    store.close()
    make_read_only(nobody_writes, monkeypatch)
    store = SqliteStore(path)
    assert store.get("a") == entry("a", "kept") and store.stats().entries == 1
    with pytest.raises(CacheError, match="readonly database: make the file and its folder writable"):
        store.put(entry("b"))
    assert store.get("b") is None
    store.close()


def test_a_full_disk_says_so_and_the_store_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "cache.sqlite")
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CacheError, match="disk is full: free some space and rerun the command"):
        store.put(entry("a", "x" * 100_000))
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.put(entry("a", "x" * 100_000))
    assert store.get("a") == entry("a", "x" * 100_000) and store.faults() == []
    store.close()

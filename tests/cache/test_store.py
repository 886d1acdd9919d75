"""What every store promises, on each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldscope.cache.sqlite import SqliteStore
from fieldscope.cache.store import CacheStore, Entry, MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheStore]:
    made: CacheStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "cache.sqlite")
    yield made
    made.close()


def entry(key: str, response: str = "{}", model: str = "m") -> Entry:
    return Entry(key, '{"ask":"Ж\u0000"}', response, f'{{"model":"{model}"}}')


def test_what_was_put_is_got(store: CacheStore) -> None:
    assert store.get("a") is None
    store.put(entry("a", '"Ünï\\u0000"'))
    assert store.get("a") == entry("a", '"Ünï\\u0000"')
    assert store.get("b") is None


def test_the_first_entry_stays_unless_replaced(store: CacheStore) -> None:
    store.put(entry("a", "1"))
    store.put(entry("a", "2"))
    assert store.get("a") == entry("a", "1")
    store.put(entry("a", "3"), replace=True)
    assert store.get("a") == entry("a", "3")


def test_stats_count_entries_by_model(store: CacheStore) -> None:
    assert store.stats().entries == 0 and store.stats().by_model == {}
    for n in range(5):
        store.put(entry(str(n), "x" * 1000, model="m" if n else "other"))
    stats = store.stats()
    assert stats.entries == 5 and stats.by_model == {"m": 4, "other": 1}
    assert stats.size_bytes >= 5000

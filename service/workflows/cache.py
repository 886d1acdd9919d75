"""What `fieldscope cache` does: the response cache's file, its ages, and copies of it in portable files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import CacheError
from fieldscope.service.wiring.feedback import progress
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.cache.archive import ArchiveHeader
    from fieldscope.cache.sqlite import SqliteStore
    from fieldscope.cache.store import Share, StoreStats

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_AGE = re.compile(r"(\d{1,6})([hdw])")


@dataclass(frozen=True)
class Verified:
    """The number of entries; by key, why some do not match their checksums (`bad`) and why others are no usable answers
    (`unusable`); and what SQLite finds wrong with the file."""

    entries: int
    bad: dict[str, str]
    unusable: dict[str, str]
    file: list[str]


def cache_path() -> Path:
    """The response cache's file, which need not be there."""
    return Settings().store_path


def parse_age(text: str) -> timedelta:
    """`12h`, `30d` or `8w`. Raises ValueError for anything else."""
    age = _AGE.fullmatch(text.strip())
    if age is None:
        raise ValueError(f"{text!r} is no age; write hours, days or weeks, such as 12h, 30d or 8w")
    return int(age[1]) * _UNITS[age[2]]


def age_of(asked_at: str | None, now: datetime | None = None) -> str:
    """How long ago a time (ISO 8601) was, in the largest whole unit; nothing where it is none."""
    try:
        passed = (now or datetime.now(UTC)) - datetime.fromisoformat(asked_at or "")
    except (ValueError, TypeError):
        return "-"
    for name, unit in (("d", timedelta(days=1)), ("h", timedelta(hours=1))):
        if passed >= unit:
            return f"{passed // unit} {name}"
    return f"{max(passed // timedelta(minutes=1), 0)} min"


@contextmanager
def open_cache() -> Iterator[SqliteStore | None]:
    """The response cache; None where there is none, and none is made."""
    from fieldscope.cache.sqlite import SqliteStore

    path = cache_path()
    if not path.exists():
        yield None
        return
    with closing(SqliteStore(path)) as store:
        yield store


def stats() -> StoreStats:
    """How much there is."""
    from fieldscope.cache.store import StoreStats

    with open_cache() as store:
        return StoreStats(size_bytes=0, models={}) if store is None else store.stats()


def verify() -> Verified:
    """Read every entry, and take all checksums again."""
    from fieldscope.agent.lmm.cached import answer_fault
    from fieldscope.agent.score_entries import is_scored, stored_fault

    bad: dict[str, str] = {}
    unusable: dict[str, str] = {}
    entries = 0
    with open_cache() as store:
        if store is None:
            return Verified(0, {}, {}, [])
        total = store.stats().entries
        with progress("verifying") as report:
            for entry in store.entries():
                entries += 1
                if fault := stored_fault(entry):
                    bad[entry.key] = fault
                elif not is_scored(entry) and (fault := answer_fault(entry)):
                    unusable[entry.key] = fault
                if entries % 1000 == 0:
                    report(entries, max(total, entries))
        return Verified(entries, bad, unusable, store.faults())


@dataclass(frozen=True)
class Pruning:
    """What to remove: what was asked before a time (ISO 8601, UTC), of models whose identity begins so; or entries by
    their keys, where those were found bad."""

    before: str
    model: str | None = None
    keys: Sequence[str] | None = None

    @classmethod
    def older_than(cls, age: timedelta, model: str | None = None) -> Pruning:
        """Nothing that is asked from now on is among it."""
        try:
            before = datetime.now(UTC) - age
        except OverflowError:
            before = datetime.min.replace(tzinfo=UTC)
        return cls(before.isoformat(timespec="seconds"), model)

    def share(self, store: SqliteStore) -> Share:
        """How much that is."""
        from fieldscope.cache.store import Share

        return store.share(self.before, self.model) if self.keys is None else Share(len(self.keys))

    def remove(self, store: SqliteStore) -> tuple[int, int]:
        """Remove it: how many entries, and by how many bytes the file shrank."""
        gone = store.remove_share(self.before, self.model) if self.keys is None else store.remove(self.keys)
        return gone, store.compact()


def export_runs(runs: Sequence[Path], file: Path) -> ArchiveHeader:
    """Write runs into a portable file. Raises what `fieldscope.eval.runs.recording.write_recording` raises."""
    from fieldscope.cache.store import MemoryStore
    from fieldscope.eval.runs.recording import write_recording

    with open_cache() as store:
        return write_recording(file, runs, store or MemoryStore())


def import_file(file: Path) -> tuple[int, int]:
    """Take a portable file's responses into the response cache: how many it has, and how many were new. What the cache
    had stays. Raises `CacheError`, with nothing taken, for a file that can't be trusted."""
    from fieldscope.cache.archive import Archive
    from fieldscope.cache.sqlite import SqliteStore
    from fieldscope.eval.runs.recording import read_entries

    archive = Archive(file)
    total = sum(archive.header.counts.values())
    count = 0
    with progress("checking") as report:
        for count, _ in enumerate(read_entries(archive), start=1):
            if count % 1000 == 0:
                report(count, max(total, count))
    if not count:
        raise CacheError(f"{file} holds no responses; export a run that asked a model")
    with closing(SqliteStore(cache_path())) as store:
        return count, store.put_all(read_entries(archive))

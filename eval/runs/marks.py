"""People's marks on the images of a run: accepted, rejected or unsure, in `marks.sqlite` in its folder.

    marks = Marks(Path("searches/20261130-101500-crabs-1f2e"))
    marks.put("q-1a2b3c4d5e", {"crab-1.jpg": "accepted", "dune.jpg": "rejected"}, by="Ana")
    marks.of("q-1a2b3c4d5e")     # {"crab-1.jpg": "accepted", "dune.jpg": "rejected"}

The file is only added to, so every change stays on record. The last mark of an image counts, and None takes it back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from fieldscope.core.errors import ConfigError
from fieldscope.core.private import private_file

NAME = "marks.sqlite"

Mark = Literal["accepted", "rejected", "unsure"]
MARKS: tuple[Mark, ...] = get_args(Mark)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    number INTEGER PRIMARY KEY,
    query_id TEXT NOT NULL,
    image_id TEXT NOT NULL,
    mark TEXT CHECK (mark IN ('accepted', 'rejected', 'unsure')),
    person TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_query ON marks (query_id, image_id, number);
"""


@dataclass(frozen=True)
class MarkLine:
    """One mark as it was made, by whom (empty where nobody gave a name) and when (ISO 8601, UTC)."""

    query_id: str
    image_id: str
    mark: Mark | None
    person: str
    at: str


class Marks:
    """The marks in a run's folder. Any number of processes may use them at once. Raises `ConfigError` where the file
    can't be read or written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def put(self, query_id: str, marks: Mapping[str, Mark | None], by: str = "") -> None:
        """Mark images of a query. Once this returns, the marks survive `kill -9` and a power failure."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(query_id, image_id, mark, by, at) for image_id, mark in marks.items()]
        with self._writing() as db:
            db.executemany("INSERT INTO marks (query_id, image_id, mark, person, at) VALUES (?, ?, ?, ?, ?)", rows)

    def of(self, query_id: str, by: str | None = None) -> dict[str, Mark]:
        """Image id -> the mark that counts, those of one person where `by` names one."""
        return {image: mark for (query, image), mark in self._all(by).items() if query == query_id}

    def by_query(self, by: str | None = None) -> dict[str, dict[str, Mark]]:
        """The marks that count of every query that has some."""
        found: dict[str, dict[str, Mark]] = {}
        for (query_id, image_id), mark in self._all(by).items():
            found.setdefault(query_id, {})[image_id] = mark
        return found

    def people(self) -> list[str]:
        """Everyone who marked, in the order of their first mark."""
        return list(dict.fromkeys(line.person for line in self.history()))

    def history(self) -> list[MarkLine]:
        """Every mark, the oldest first."""
        if not self.path.exists():
            return []
        with self._opened() as db:
            rows = db.execute("SELECT query_id, image_id, mark, person, at FROM marks ORDER BY number").fetchall()
        return [MarkLine(*row) for row in rows]

    def _all(self, by: str | None) -> dict[tuple[str, str], Mark]:
        last = {(line.query_id, line.image_id): line.mark for line in self.history() if by is None or line.person == by}
        return {place: mark for place, mark in last.items() if mark is not None}

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            private_file(self.path)
        except OSError as error:
            raise ConfigError(f"can't write {self.path}: {error.strerror}. Check the folder's permissions.") from error
        with self._opened() as db, db:
            yield db

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30.0)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(_SCHEMA)
                yield db
        except sqlite3.Error as error:
            raise ConfigError(
                f"the marks in {self.path} can't be read or written ({error}). Check that the disk is not full."
            ) from error


def judgments_of(marks: Mapping[str, Mark]) -> dict[str, int]:
    """Marks as judgments: accepted is 1, rejected is 0; an image that is unsure has none."""
    return {image_id: int(mark == "accepted") for image_id, mark in marks.items() if mark != "unsure"}

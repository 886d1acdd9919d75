"""A user's choice of queries: a list to keep, a list to leave out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Query
from fieldscope.core.validation import read_document


@dataclass(frozen=True)
class Selection:
    """Files of query ids or texts, one a line; case and white space of a text do not matter. None chooses nothing."""

    only: Path | None = None
    without: Path | None = None

    def of(self, queries: Sequence[Query]) -> tuple[Query, ...]:
        """The queries that are on the one list and not on the other, in their own order.

        Raises `ConfigError` where a file can't be read, a line is no query's, or no query is left.
        """
        kept = _named(self.only, queries) if self.only else {query.id for query in queries}
        left_out = _named(self.without, queries) if self.without else set()
        chosen = tuple(query for query in queries if query.id in kept - left_out)
        if not chosen:
            raise ConfigError(f"none of the {len(queries)} queries is left. Check {self.only or self.without}.")
        return chosen

    @property
    def suffix(self) -> str:
        """What distinguishes the folder of these runs from that of all queries; empty where nothing is chosen."""
        lists = (("only", self.only), ("without", self.without))
        return "".join(f"-{word}-{path.stem}" for word, path in lists if path)


def _named(path: Path, queries: Sequence[Query]) -> set[str]:
    """The ids of the queries that a file's lines name, by id or text."""
    ids = {query.id for query in queries}
    by_text: dict[str, set[str]] = {}
    for query in queries:
        by_text.setdefault(_plain(query.text), set()).add(query.id)
    found: set[str] = set()
    for number, line in enumerate(read_document(path, ConfigError).removeprefix("\ufeff").splitlines(), start=1):
        wanted = line.strip()
        if wanted in ids:
            found.add(wanted)
        elif known := by_text.get(_plain(wanted)):
            found |= known
        elif wanted:
            near = difflib.get_close_matches(_plain(wanted), [*by_text, *ids], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"{path}, line {number}: {wanted!r} is not the id or text of a query{hint}")
    if not found:
        raise ConfigError(f"{path} names no query. Write query ids or texts, one a line.")
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()

"""A first stage that repeats no search."""

from __future__ import annotations

from dataclasses import dataclass, field

from fieldscope.core.types import Candidate, Search
from fieldscope.retrieval.library import Library


@dataclass(frozen=True)
class RememberedSearch:
    """A library for one query, which makes each search once and keeps its candidates."""

    library: Library
    _candidates: dict[Search, list[Candidate]] = field(default_factory=dict, init=False, repr=False)

    def search(self, search: Search) -> list[Candidate]:
        """As `Library.search`."""
        if search not in self._candidates:
            self._candidates[search] = self.library.search(search)
        return list(self._candidates[search])

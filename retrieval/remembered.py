"""A first stage that repeats no search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fieldscope.core.types import Candidate, Prior, Query
from fieldscope.retrieval.library import Library


@dataclass(frozen=True)
class RememberedSearch:
    """A library for one query, which makes each search once and keeps its candidates."""

    library: Library
    _candidates: dict[tuple[object, ...], list[Candidate]] = field(default_factory=dict, init=False, repr=False)

    def search(
        self,
        query: Query,
        k: int,
        descriptions: Sequence[str] = (),
        caption_weight: float = 0.0,
        prior: Prior = "fused",
    ) -> list[Candidate]:
        """As `Library.search`."""
        key = (query, k, tuple(descriptions), caption_weight, prior)
        if key not in self._candidates:
            self._candidates[key] = self.library.search(query, k, descriptions, caption_weight, prior)
        return list(self._candidates[key])

"""A first stage that does not search again for what it has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fieldscope.core.types import Candidate, Prior, Query
from fieldscope.retrieval.library import Library


@dataclass(frozen=True)
class RememberedSearch:
    """A library for one query, each of whose searches is made once. It keeps all that was found."""

    library: Library
    _found: dict[tuple[object, ...], list[Candidate]] = field(default_factory=dict, init=False, repr=False)

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
        if key not in self._found:
            self._found[key] = self.library.search(query, k, descriptions, caption_weight, prior)
        return list(self._found[key])

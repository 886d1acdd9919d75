"""What the graph needs from outside: bound when it is built, never part of its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.lmm.base import LMM
from core.types import Candidate, ImageSource, Query


class Retriever(Protocol):
    """A first stage: the images of a collection that fit a query best."""

    def search(self, query: Query, k: int) -> Sequence[Candidate]:
        """At most `k` candidates, each image once, with their first-stage scores as priors."""
        ...


@dataclass(frozen=True)
class Deps:
    """Images, models and limits.

    `images` and `retriever` are called from worker threads, so that decoding and encoding do not hold up calls in
    flight. `max_concurrency` bounds the model calls of one query that are in flight at once. `flags` are warnings that
    every result shall carry.
    """

    images: ImageSource
    lmm: LMM | None = None
    retriever: Retriever | None = None
    max_concurrency: int = 32
    flags: tuple[str, ...] = ()

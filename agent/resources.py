"""What the agent needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fieldscope.agent.calibration import Calibration
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.roles import LMMs
from fieldscope.agent.types import ImageScore
from fieldscope.core.types import Candidate, ImageSource, Query, Search
from fieldscope.retrieval.regions import RegionProposer


class Retriever(Protocol):
    """A first stage: the images of a collection that fit a query best."""

    def search(self, search: Search) -> Sequence[Candidate]:
        """At most `search.k` candidates, each image once, with their first-stage scores as priors."""
        ...


class CandidateScorer(Protocol):
    """A scoring model with its memory: it reads a query's candidates itself, by their ids."""

    @property
    def fingerprint(self) -> str:
        """What tells scoring models apart; see `fieldscope.retrieval.scorer.Scorer`."""
        ...

    async def scores(
        self, query: Query, image_ids: Sequence[str], question: str | None = None, instruction: str | None = None
    ) -> Sequence[ImageScore]:
        """What the model says of each image, in order: how well it fits the query or, where one is given, the text of
        a `question`. An image that can't be read or judged is unknown, with the reason.

        Raises `ConfigError` for a kind of query that the model does not take.
        """
        ...


@dataclass(frozen=True)
class Resources:
    """Images, models and limits.

    `lmm` answers in every role, or is the LMM of each (`LMMs`).
    `images` and `retriever` are called from worker threads, so that decoding and encoding do not hold up calls in
    flight. `max_concurrency` bounds the tasks of one query that are in flight at once. `calibration` is what was fitted
    for these very models and prompts, if anything was. `flags` are warnings that every result shall carry. `scorer` is
    the scoring model of strategies that use one. `regions` proposes where to look closer; the `images` then have
    all looks at them, too (`fieldscope.retrieval.looked_at`). Every request is made under the `seed` (under 2**47).
    """

    images: ImageSource
    lmm: LMM | LMMs | None = None
    retriever: Retriever | None = None
    max_concurrency: int = 32
    calibration: Calibration | None = None
    flags: tuple[str, ...] = ()
    scorer: CandidateScorer | None = None
    seed: int = 0
    regions: RegionProposer | None = None

    @property
    def lmms(self) -> LMMs:
        """The LMM of each role."""
        return LMMs.of(self.lmm)

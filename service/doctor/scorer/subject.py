"""The scorer under examination, and what the checks so far have found out about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fieldscope.retrieval.scorer import Document
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.probes import Probe
from fieldscope.service.doctor.scorer.asker import Asker, Score
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.texts import OTHER_TEXTS, caption

Kind = Literal["images", "texts"]

KINDS: tuple[Kind, ...] = ("images", "texts")

ROUNDING = 6e-4
"""By this much of the scores' range, or of 1 where that is more, a score may differ between two calls without a fault.
"""

CLEAR = 5e-3
"""A difference, as a share of the scores' range, that half precision does not explain."""


@dataclass
class Subject:
    """What a check needs, and what it leaves for later checks.

    `name` is the scorer as the user wrote it, without keys, `identity` what tells it apart in caches. `asker` asks as
    strategies do, `lister` sends all documents of a call in one request. `probe` has images with known descriptions.
    `grids` are the scores of documents alone, for each kind that the scorer takes, and `refusals` the reasons why it
    takes no other. `alone` are those of each `line` for the first query. `noise` is by how much a score changes when
    one call is repeated, as a share of the scores' range where that is more than 1.
    """

    name: str
    asker: Asker
    lister: Asker
    probe: Probe
    grids: dict[Kind, Grid] = field(default_factory=dict)
    refusals: dict[Kind, str] = field(default_factory=dict)
    alone: dict[Kind, Sequence[Score]] = field(default_factory=dict)
    noise: float = 0.0
    identity: str = ""

    @property
    def queries(self) -> tuple[str, ...]:
        """Four descriptions; the i-th image and the i-th text match the i-th."""
        return tuple(description for description, _ in self.probe.lineup)

    def documents(self, kind: Kind) -> tuple[Document, ...]:
        """One document for each query."""
        if kind == "texts":
            return tuple(caption(query) for query in self.queries)
        return tuple(self.probe.images[image] for _, image in self.probe.lineup)

    def line(self, kind: Kind) -> tuple[Document, ...]:
        """The same and some that match no query; texts among them are of different lengths."""
        if kind == "texts":
            return (*self.documents(kind), *OTHER_TEXTS)
        known = {image for _, image in self.probe.lineup}
        return (*self.documents(kind), *(image for name, image in self.probe.images.items() if name not in known))

    def kinds(self) -> Iterator[Kind]:
        """The kinds of documents that the scorer takes."""
        return (kind for kind in KINDS if kind in self.grids)

    def rounding(self, kind: Kind) -> float:
        """By how much two scores of one document may differ without a fault."""
        return ROUNDING * max(1.0, self.grids[kind].spread)

    def clear(self, kind: Kind) -> float:
        """By how much two scores of one document differ that rounding does not explain."""
        return max(self.rounding(kind), CLEAR * max(0.2, self.grids[kind].spread))


Check = Callable[[Subject], Sequence[Finding]]
"""Asks the scorer something, and says what it found: one finding or several, always under the same names."""

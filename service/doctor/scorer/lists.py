"""Documents in company: lists of several sizes, scored in one call each, beside the scores of the same ones alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.retrieval.scorer import Document
from fieldscope.service.doctor.images import mosaic
from fieldscope.service.doctor.scorer.asker import Score
from fieldscope.service.doctor.scorer.subject import Kind, Subject
from fieldscope.service.doctor.scorer.texts import notes

SIZES = (2, 3, 5, 9, 17, 33)
LONGEST = 120
"""Documents of the longest list, which is scored for the kind of document that costs least."""

_SMALL = 64  # pixels a side of images that only fill a list


@dataclass(frozen=True)
class Listed:
    """One list: for each document the score in the list and, where it was asked for, the score alone; NaN for none.
    `error` says why the call failed, or why the first of the documents without a score has none."""

    kind: Kind
    scores: NDArray[np.float64]
    alone: NDArray[np.float64]
    error: str | None = None

    @property
    def missing(self) -> int:
        """How many documents have no score."""
        return int(np.isnan(self.scores).sum())

    @property
    def apart(self) -> float:
        """The largest difference between a document's score in the list and alone; 0 where none can be compared."""
        differences = np.abs(self.scores - self.alone)
        return float(np.nanmax(differences)) if np.isfinite(differences).any() else 0.0


def score_alone(subject: Subject, kind: Kind) -> list[Score]:
    """The score of each of the line's documents alone, for the first query. The grid has those that match a query."""
    known = [float(score) if np.isfinite(score) else None for score in subject.grids[kind].scores[0]]
    return known + subject.asker.alone(subject.queries[0], subject.line(kind)[len(known) :])


def score_lists(subject: Subject, kind: Kind, alone: Sequence[Score]) -> list[Listed]:
    """Score lists of all sizes; documents of the line stand at both ends of the longer ones."""
    line, cheapest = subject.line(kind), "texts" if "texts" in subject.grids else "images"
    lists = []
    for size in (*SIZES, *((LONGEST,) if kind == cheapest else ())):
        head, tail = (line[:size], ()) if size <= len(line) else (line[:4], line[4:])
        fillers: list[Document] = [*_fillers(kind, size - len(head) - len(tail))]
        known = [*alone[: len(head)], *[None] * len(fillers), *alone[len(head) : len(head) + len(tail)]]
        lists.append(_score(subject, kind, [*head, *fillers, *tail], known))
    return lists


def _fillers(kind: Kind, number: int) -> Sequence[Document]:
    return notes(number) if kind == "texts" else [mosaic(_SMALL) for _ in range(number)]


def _score(subject: Subject, kind: Kind, documents: Sequence[Document], alone: Sequence[Score]) -> Listed:
    known = np.array(alone, dtype=np.float64)
    try:
        pairs = subject.lister.ask(subject.queries[0], documents)
    except (LMMError, ConfigError) as error:
        return Listed(kind, np.full(len(documents), np.nan), known, str(error))
    reason = next((pair.error for pair in pairs if pair.value is None), None)
    return Listed(kind, np.array([pair.value for pair in pairs], dtype=np.float64), known, reason)

"""The scores of known documents for known queries, and what can be read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldscope.service.doctor.scorer.asker import Score

_SAME = 3e-3


@dataclass(frozen=True)
class Grid:
    """Scores, shape (queries, documents), each from a call with one document; NaN where there is none. The document
    that matches query i is document i, and no other matches it."""

    scores: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Sequence[Sequence[Score]]) -> Grid:
        return cls(np.array(scores, dtype=np.float64))

    @property
    def values(self) -> NDArray[np.float64]:
        """All scores that there are."""
        return self.scores[np.isfinite(self.scores)]

    @property
    def right(self) -> NDArray[np.float64]:
        """The scores of the documents that match."""
        matching = np.diagonal(self.scores)
        return matching[np.isfinite(matching)]

    @property
    def wrong(self) -> NDArray[np.float64]:
        """The scores of the documents that do not match."""
        others = self.scores[~np.eye(len(self.scores), dtype=bool)]
        return others[np.isfinite(others)]

    @property
    def spread(self) -> float:
        """The largest score minus the smallest; 0 without scores."""
        return float(np.ptp(self.values)) if self.values.size else 0.0

    @property
    def flat(self) -> bool:
        """Whether all scores are equal but for noise."""
        return not self.values.size or self.spread <= _SAME * max(1.0, float(np.abs(self.values).max()))

    @property
    def correct(self) -> float:
        """How often the matching document scores above another one for the same query, in [0, 1]; a tie counts half. It
        is the AUC within queries; 0.5 without scores."""
        ahead = np.diagonal(self.scores)[:, None] - self.scores
        pairs = ahead[~np.eye(len(self.scores), dtype=bool)]
        pairs = pairs[np.isfinite(pairs)]
        return float(((pairs > 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else 0.5

    @property
    def interplay(self) -> float:
        """How much of the scores' variation is due to query and document together, in [0, 1]: what remains when each
        query's and each document's mean is taken away. 0 means that every query has the same order of documents."""
        scores = self.scores[:, np.isfinite(self.scores).all(axis=0)]
        if not scores.size or not np.ptp(scores):
            return 0.0
        centred = scores - scores.mean()
        remaining = centred - centred.mean(axis=0) - centred.mean(axis=1)[:, None]
        return float(np.sqrt((remaining**2).mean() / (centred**2).mean()))

"""Does a score follow its document, whatever its place in the list?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import PRECISION
from fieldscope.service.doctor.scorer.subject import ROUNDING, Kind, Subject

NAME = "order of documents"
_CALLER = "update the server, or correct what stands before it"


@dataclass(frozen=True)
class _Rotated:
    """The scores of one list in all of its rotations, shape (rotations, places), and which document stood where."""

    kind: Kind
    scores: NDArray[np.float64]
    places: NDArray[np.intp]

    @property
    def by_document(self) -> NDArray[np.float64]:
        """The same, shape (rotations, documents)."""
        sorted_scores = np.empty_like(self.scores)
        np.put_along_axis(sorted_scores, self.places, self.scores, axis=1)
        return sorted_scores

    @property
    def apart(self) -> float:
        """The largest difference between two scores of one document."""
        return _range(self.by_document)

    @property
    def bias(self) -> NDArray[np.float64]:
        """By how much each place raises scores. Every document stands once at every place, so that their own scores
        cancel out."""
        complete = self.scores[np.isfinite(self.scores).all(axis=1)]
        return complete.mean(axis=0) - complete.mean() if len(complete) else np.zeros(self.scores.shape[1])


def check_order(subject: Subject) -> Finding:
    """Score a list of each kind in all of its rotations."""
    rotated = [_rotate(subject, kind) for kind in subject.kinds()]
    worst = max(rotated, key=lambda each: each.apart / subject.clear(each.kind))
    clear = subject.clear(worst.kind)
    seen = (
        f"scores of a document differ by at most {worst.apart:.2g} over {len(worst.scores)} orders of "
        f"{len(worst.scores)} {worst.kind}"
    )
    if subject.noise > ROUNDING and worst.apart <= 3 * max(subject.noise, clear):
        return Finding(NAME, "unknown", seen, "single calls change, too; see the check 'same on repeat'")
    if worst.apart > clear:
        meaning = "a score depends on where its document stands in the list, so rankings depend on the first stage's"
        if (mistake := _index_mistake(worst, np.array(subject.alone[worst.kind], dtype=np.float64), clear)) is not None:
            return Finding(NAME, "fail", f"{seen}; {mistake}", "scores are given to the wrong documents", _CALLER)
        if np.ptp(worst.bias) > clear / 2:
            place = int(np.abs(worst.bias).argmax())
            seen += f"; place {place + 1} changes the score by {worst.bias[place]:+.2g} on average"
        change = f"score one document a call, or use a pointwise reranker; {PRECISION}"
        return Finding(NAME, "fail", seen, meaning, change)
    if any(each.apart > subject.rounding(each.kind) for each in rotated):
        return Finding(NAME, "warn", seen, "rounding depends on the order; near-equal documents may swap", PRECISION)
    return Finding(NAME, "ok", seen, "a score belongs to its document")


def _rotate(subject: Subject, kind: Kind) -> _Rotated:
    line = subject.line(kind)
    places = np.array([np.roll(np.arange(len(line)), turn) for turn in range(len(line))])
    scores = [subject.lister.score(subject.queries[0], [line[document] for document in order]) for order in places]
    return _Rotated(kind, np.array(scores, dtype=np.float64), places)


def _index_mistake(rotated: _Rotated, alone: NDArray[np.float64], clear: float) -> str | None:
    """How the scores were given to the wrong documents; None if they were not."""
    expected = alone[rotated.places]
    shifted = np.full_like(expected, np.nan)
    shifted[:, 1:] = expected[:, :-1]
    for guess, mistake in (
        (
            -np.sort(-expected, axis=1),
            "they fall from the first document to the last: `index` is the rank, not the place",
        ),
        (expected[:, ::-1], "they are reversed: `index` counts from the end, or results are in reverse order"),
        (shifted, "they are one place too far: `index` counts from 1"),
    ):
        apart = np.abs(rotated.scores - guess)
        if np.isfinite(apart).any() and np.nanmax(apart) <= clear:
            return mistake
    if _range(rotated.scores) <= clear:
        return "they stay at their places, whatever document stands there: `index` is not the document's place"
    return None


def _range(scores: NDArray[np.float64]) -> float:
    """The largest difference within a column; 0 where there is none."""
    ranges = [np.ptp(column[np.isfinite(column)]) for column in scores.T if np.isfinite(column).any()]
    return float(max(ranges, default=0.0))

"""Does a score depend on how many documents are scored together, or on what else the server does?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import PRECISION
from fieldscope.service.doctor.scorer.asker import Score
from fieldscope.service.doctor.scorer.lists import Listed
from fieldscope.service.doctor.scorer.subject import ROUNDING, Kind, Subject

NAME = "same in a batch"
AT_ONCE = 16
CALLS = 32


def check_batch(subject: Subject, lists: Sequence[Listed]) -> Finding:
    """Compare the scores of documents in lists, and of single documents in many calls at once, with those alone."""
    worst = max(lists, key=lambda listed: listed.apart / subject.clear(listed.kind), default=None)
    if worst is None:
        return Finding(NAME, "unknown", "no list has scores", "see the check 'every document'")
    in_lists = max(listed.apart for listed in lists)
    under_load = _under_load(subject)
    seen = (
        f"scores differ by at most {in_lists:.2g} between a document alone and in a list, and by "
        f"{max(under_load.values()):.2g} between calls alone and {AT_ONCE} at once"
    )
    most = max(in_lists, *under_load.values())
    if subject.noise > ROUNDING and most <= 3 * max(subject.noise, subject.clear(worst.kind)):
        return Finding(NAME, "unknown", seen, "single calls change, too; see the check 'same on repeat'")
    affected = [len(each.scores) for each in lists if each.apart > subject.clear(each.kind)]
    if affected:
        seen += f"; the shortest list with another score has {min(affected)} documents"
        meaning = "a score depends on the number of documents in the call, or on the others"
        change = (
            f"{PRECISION}; turn off what normalises scores over a list; a listwise reranker (jina-reranker-v3) is no "
            "scorer of single documents"
        )
        return Finding(NAME, "fail", seen, meaning, change)
    loaded = [difference > subject.clear(kind) for kind, difference in under_load.items()]
    if any(loaded):
        meaning = "a score depends on other calls at the same time: the server mixes up answers"
        return Finding(NAME, "fail", seen, meaning, f"update the server, or send it fewer calls at once; {PRECISION}")
    rounded = [each.apart <= subject.rounding(each.kind) for each in lists]
    rounded += [difference <= subject.rounding(kind) for kind, difference in under_load.items()]
    if not all(rounded):
        return Finding(NAME, "warn", seen, "rounding depends on the batch; near-equal documents may swap", PRECISION)
    return Finding(NAME, "ok", seen, "a score does not depend on other documents or calls")


def _under_load(subject: Subject) -> dict[Kind, float]:
    """For each kind, the largest difference between scores of single documents in many calls at once and alone."""
    return {kind: _apart_under_load(subject, kind) for kind in subject.kinds()}


def _apart_under_load(subject: Subject, kind: Kind) -> float:
    grid, documents = subject.grids[kind].scores, subject.documents(kind)
    cells = (list(np.ndindex(grid.shape)) * 2)[:CALLS]

    def score(cell: tuple[int, ...]) -> Score:
        query, document = cell
        return subject.asker.score(subject.queries[query], [documents[document]])[0]

    with ThreadPoolExecutor(AT_ONCE) as workers:
        scores = np.array(list(workers.map(score, cells)), dtype=np.float64)
    apart = np.abs(scores - np.array([grid[cell] for cell in cells]))
    return float(np.nanmax(apart)) if np.isfinite(apart).any() else 0.0

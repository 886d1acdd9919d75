"""Is a score the same when its call is repeated?"""

from __future__ import annotations

import numpy as np

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import PRECISION
from fieldscope.service.doctor.scorer.subject import ROUNDING, Subject

NAME = "same on repeat"
REPEATS = 8


def check_repeats(subject: Subject) -> Finding:
    """Repeat calls with one document each, one at a time. The first answers, which a server may give while it warms up,
    are in the subject's grids and judged less strictly. Leaves the subject's `noise`."""
    ranges, firsts, calls, lost = [0.0], [0.0], 0, 0
    for kind in subject.kinds():
        documents, scale = subject.documents(kind), max(1.0, subject.grids[kind].spread)
        for query, document in ((0, 0), (0, 1), (1, 1), (2, 0)):
            again = [subject.asker.score(subject.queries[query], [documents[document]])[0] for _ in range(REPEATS)]
            scores = np.array([score for score in again if score is not None])
            calls, lost = calls + len(again), lost + len(again) - len(scores)
            if scores.size:
                ranges.append(float(np.ptp(scores)) / scale)
                first = subject.grids[kind].scores[query, document]
                firsts.append(abs(float(np.median(scores)) - first) / scale if np.isfinite(first) else 0.0)
    subject.noise = max(ranges)
    seen = f"scores differ by at most {max(ranges):.2g} over {REPEATS} repeats of {calls // REPEATS} calls"
    if lost:
        change = "look into the server's log; a document without a score keeps its first-stage position"
        return Finding(NAME, "fail", f"{seen}; {lost} repeats have no score", "a score comes only at times", change)
    if subject.noise > ROUNDING:
        meaning = "one call, alone, has another score each time, so rankings are not reproducible"
        change = (
            "check that all servers behind the address serve the same model, and that it is in evaluation mode (no "
            f"dropout, no sampling); {PRECISION}"
        )
        return Finding(NAME, "fail", seen, meaning, change)
    if max(firsts) > ROUNDING:
        seen += f", but by {max(firsts):.2g} from the first answer"
        return Finding(NAME, "warn", seen, "scores changed while the doctor asked", f"ask again; {PRECISION}")
    return Finding(NAME, "ok", seen, "a ranking is reproducible")

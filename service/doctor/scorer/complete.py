"""Does every document of a list get a score?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.lists import Listed

NAME = "every document"

_SHORT = 5
"""Lists of so many documents must get scores; a server may limit longer ones."""


def judge_complete(lists: Sequence[Listed]) -> Finding:
    """Count the scores of each list."""
    refused = [listed for listed in lists if listed.missing == len(listed.scores) > _SHORT]
    taken = [listed for listed in lists if not any(listed is each for each in refused)]
    short = [listed for listed in taken if listed.missing]
    if not short:
        sizes = ", ".join(str(size) for size in sorted({len(listed.scores) for listed in taken}))
        seen = f"lists of {sizes} documents have a score for each"
        if not refused:
            return Finding(NAME, "ok", seen, "no document is lost")
        first = min(refused, key=lambda listed: len(listed.scores))
        seen += f"; one of {len(first.scores)} {first.kind} gets no scores: {first.error}"
        return Finding(NAME, "warn", seen, "long lists have to be sent in parts", "raise the server's limit")
    worst = max(short, key=lambda listed: listed.missing)
    given = len(worst.scores) - worst.missing
    seen = f"{worst.missing} of {len(worst.scores)} {worst.kind} of one list have no score"
    if worst.error:
        seen += f": {worst.error}"
    meaning = "documents without a score can't be ranked; they keep their first-stage position"
    if (limit := _limit(lists)) is not None:
        seen += f"; longer lists get {limit} scores, whatever their length"
        meaning = f"the server returns the best {limit} only (its own `top_n`), and cuts the others: {meaning}"
        return Finding(NAME, "fail", seen, meaning, "raise or remove the server's limit (top_n, top_k, max_results)")
    if given == 0:
        first = min(short, key=lambda listed: len(listed.scores))
        seen = f"a list of {len(first.scores)} {first.kind} gets no scores: {first.error}"
        change = (
            "follow the message: `index` counts from 0 and names each document once, scores are finite numbers; where "
            "the server limits a request's documents, raise the limit"
        )
    else:
        change = (
            "look into the server's log for NaN (vLLM: --dtype bfloat16 or float32 instead of float16), and at an "
            "answer's `index`, which counts from 0 and names each document once"
        )
    return Finding(NAME, "fail", seen, meaning, change)


def _limit(lists: Sequence[Listed]) -> int | None:
    """The number of scores that every longer list has; None if there is none."""
    counts = {int(np.isfinite(listed.scores).sum()) for listed in lists if listed.missing}
    if len(counts) != 1:
        return None
    limit = counts.pop()
    return limit if limit and all(listed.missing == 0 for listed in lists if len(listed.scores) <= limit) else None

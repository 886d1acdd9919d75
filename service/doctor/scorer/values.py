"""Are scores spread over the range that a reranker uses, or all alike?"""

from __future__ import annotations

import math

from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import TEMPLATE
from fieldscope.service.doctor.scorer.grid import Grid
from fieldscope.service.doctor.scorer.subject import Kind

_ZERO = 1e-3
_UNDECIDED = 0.5  # log-odds within which all scores are near 0.5
_HALF_PRECISION = 2e-3
_TWICE = (0.5, 1 / (1 + math.exp(-1)))  # sigmoid(0), sigmoid(1)


def name_of(kind: Kind) -> str:
    return f"scores of {kind}"


def judge_values(kind: Kind, grid: Grid) -> Finding:
    """What the scores of matching and of other documents, each alone in its call, say by their values alone."""
    name, values = name_of(kind), grid.values
    if not values.size:
        meaning = f"none of the {kind} has a score that can be used"
        change = "look into the server's log for NaN; vLLM: --dtype bfloat16 or float32 instead of float16"
        return Finding(name, "fail", "no score is a finite number", meaning, change)
    low, high = float(values.min()), float(values.max())
    right = f"{grid.right.mean():.4g}" if grid.right.size else "no score"
    wrong = f"{grid.wrong.mean():.4g}" if grid.wrong.size else "no score"
    seen = f"{low:.4g} to {high:.4g}; mean {right} where the document matches, {wrong} where not"
    if max(abs(low), abs(high)) <= _ZERO:
        meaning = f"all scores of {kind} are 0: the model or its output never reaches the answer"
        change = f"check the server's log, and that the model is a reranker that takes {kind}; {TEMPLATE}"
        return Finding(name, "fail", seen, meaning, change)
    if low > 0 and high < 1 and all(abs(math.log(p / (1 - p))) <= _UNDECIDED for p in (low, high)):
        alike = "all equal and near 0.5" if grid.flat else "all near 0.5"
        meaning = f"scores of {kind} are {alike}: the model answers without its template or with an untrained head"
        return Finding(name, "fail", seen, meaning, TEMPLATE)
    if grid.flat:
        meaning = f"all scores of {kind} are equal: they say nothing about the query or the document"
        change = f"check that the server passes on the query and the documents, and that it takes {kind}; {TEMPLATE}"
        return Finding(name, "fail", seen, meaning, change)
    if low >= _TWICE[0] - _HALF_PRECISION and high <= _TWICE[1] + _HALF_PRECISION:
        meaning = (
            "all scores are between 0.5 and 0.731, where the sigmoid of a probability lies: the sigmoid was applied "
            "twice, so scores are no probabilities and differ too little"
        )
        change = (
            "turn one of the two off: vLLM: --pooler-config '{\"use_activation\": false}', or the sigmoid of the "
            "gateway or library before it"
        )
        return Finding(name, "fail", seen, meaning, change)
    if low < 0 or high > 1:
        meaning = (
            "scores are outside of 0 to 1: they are logits or similarities without a sigmoid; they rank as well, but "
            "only a calibration turns them into probabilities"
        )
        return Finding(name, "ok", seen, meaning)
    return Finding(name, "ok", seen, "scores are between 0 and 1, and differ")

"""Does an instruction reach the model?"""

from __future__ import annotations

import re

from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import TEMPLATE
from fieldscope.service.doctor.scorer.asker import REFUSALS
from fieldscope.service.doctor.scorer.subject import Subject

NAME = "instruction"
_INSTRUCTIONS = (
    "Retrieve images or texts that match the query.",
    "Retrieve documents about the history of railways, whatever the query says.",
)
_NEEDS_ONE = re.compile(r"qwen3[^/]*rerank", re.IGNORECASE)


def check_instruction(subject: Subject) -> Finding:
    """Score matching and other documents under two instructions that mean different things."""
    most = 0.0
    try:
        for kind in subject.kinds():
            for query in subject.queries[:2]:
                first, second = (
                    subject.asker.alone(QueryInputs(query, instruction=instruction), subject.documents(kind)[:2])
                    for instruction in _INSTRUCTIONS
                )
                apart = [abs(a - b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
                most = max(most, *[difference / max(1.0, subject.grids[kind].spread) for difference in apart], 0.0)
    except REFUSALS as error:
        return _unread(subject, str(error), "the scorer takes no instruction; leave it out of strategies")
    seen = f"another instruction changes scores by at most {most:.2g}"
    if most > max(2 * subject.noise, 1e-6):
        return Finding(NAME, "ok", seen, "the instruction reaches the model")
    return _unread(subject, seen, "the instruction does not reach the model; leave it out of strategies")


def _unread(subject: Subject, seen: str, meaning: str) -> Finding:
    if _NEEDS_ONE.search(subject.name):
        meaning = "this model was trained with an instruction, which does not reach it: its chat template is missing"
        return Finding(NAME, "warn", seen, meaning, TEMPLATE)
    return Finding(NAME, "unknown", seen, meaning)

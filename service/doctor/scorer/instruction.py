"""Does an instruction reach the model?"""

from __future__ import annotations

import re

from fieldscope.core.errors import ConfigError, LMMError
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.doctor.finding import Finding
from fieldscope.service.doctor.scorer.advice import TEMPLATE
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
    except (LMMError, ConfigError) as error:
        return Finding(NAME, "unknown", str(error), "the scorer takes no instruction; leave it out of strategies")
    seen = f"another instruction changes scores by at most {most:.2g}"
    if most > max(2 * subject.noise, 1e-6):
        return Finding(NAME, "ok", seen, "the instruction reaches the model")
    if _NEEDS_ONE.search(subject.name):
        meaning = "the instruction does not reach the model, whose name says that it was trained with one"
        return Finding(NAME, "warn", seen, f"{meaning}: its template is missing", TEMPLATE)
    meaning = "the instruction does not reach the model: either it takes none, or its template is missing"
    return Finding(NAME, "unknown", seen, meaning, f"if the model takes instructions: {TEMPLATE}")

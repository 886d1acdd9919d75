"""What questions to a model cost together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Self

from fieldscope.agent.types import Asked, Call, Comparison, Draw, Reason, Verdict

SCORER = "scorer"
"""The role of a scoring model among the roles of LMMs: its calls are the pairs that it scored."""


@dataclass(frozen=True)
class Usage:
    """Calls and tokens of any number of questions: of a stage, a query or a run.

    `calls` are the questions that were asked, answered or not, with the tokens of their answers; `cached` of them were
    answered without the model, `unknown` got no usable answer. `not_asked` counts questions beyond these. `seconds` is
    how long the answers took when they were first given, summed over calls; `wall` is a process's own time, where one
    was measured.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    unknown: int = 0
    not_asked: int = 0

    @classmethod
    def of(cls, questions: Iterable[Asked]) -> Self:
        """The sum over questions. A joint verdict is no call of its own, so leave such verdicts out."""
        questions = list(questions)
        asked = [question for question in questions if question.state != "not_asked"]
        return cls(
            calls=len(asked),
            prompt_tokens=sum([question.prompt_tokens for question in asked]),
            completion_tokens=sum([question.completion_tokens for question in asked]),
            cached=sum([question.cached for question in asked]),
            seconds=sum([question.latency for question in asked]),
            unknown=[question.state for question in asked].count("unknown"),
            not_asked=len(questions) - len(asked),
        )

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def call_name(question: Asked) -> str:
    """The name under which calls of the question's kind are counted: `synthesize`, `verify`, `compare`, ..."""
    if isinstance(question, Call):
        return question.stage
    if isinstance(question, Draw) and question.reasoned:
        return "reason"
    if isinstance(question, Verdict) and question.look is not None:
        return "inspect"
    return "compare" if isinstance(question, Comparison) else "explain" if isinstance(question, Reason) else "verify"


def usage_by_role(questions: Iterable[Asked], roles: Mapping[str, str]) -> dict[str, Usage]:
    """What each role answered. `roles` are those of the calls, by their names."""
    asked: dict[str, list[Asked]] = defaultdict(list)
    for question in questions:
        asked[roles.get(call_name(question), "verifier")].append(question)
    return {role: Usage.of(of_role) for role, of_role in sorted(asked.items())}

"""The usage that replies report."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from fieldscope.agent.types import RerankResult


class TokenUsage(BaseModel):
    """Tokens of all questions and scores, including those that the cache answered."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, result: RerankResult, **more: float) -> Self:
        """The tokens of a result, beside the fields in `more`."""
        asked = (*result.asked, *result.scores)
        read = sum(question.prompt_tokens for question in asked)
        written = sum(question.completion_tokens for question in asked)
        return cls.model_validate(
            {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **more}
        )

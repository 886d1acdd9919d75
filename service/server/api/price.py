"""What work would cost, before it starts."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from fieldscope.service.workflows.dry_run import Outlook


class PriceView(BaseModel):
    """What would be asked of the model; with `at_most` an upper bound. Answers in the cache cost nothing. `amount` is
    money, null where the service has no prices."""

    calls: int
    at_most: bool
    prompt_tokens: int
    completion_tokens: int
    amount: float | None = Field(default=None, description="In the currency.")
    currency: str | None = None

    @classmethod
    def of(cls, outlook: Outlook) -> Self:
        """The price of one strategy's work."""
        expected = outlook.estimate
        return cls(
            calls=expected.calls,
            at_most=expected.bound,
            prompt_tokens=expected.prompt_tokens,
            completion_tokens=expected.completion_tokens,
            amount=outlook.amount,
            currency=outlook.currency,
        )

"""Predicates that a request brings, in place of those that the model would derive from the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.nodes.decompose import predicate
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Predicate
from fieldscope.service.server.api.errors import ApiError

GIVEN = "the predicates were given; P(match) was calibrated with those that the model derives"
"""The warning of a calibrated ranking with predicates of the user's own."""


class GivenPredicate(BaseModel):
    """A yes/no question, and the answer that a match must give."""

    model_config = ConfigDict(strict=True, extra="forbid")

    question: str = Field(pattern=r"\S", max_length=500, examples=["is the crab red?"])
    expected: Literal["yes", "no"] = "yes"


GivenPredicates = Annotated[list[GivenPredicate], Field(min_length=1, max_length=32, fail_fast=True)]


def fixed_predicates(given: Sequence[GivenPredicate] | None) -> tuple[Predicate, ...]:
    """The agent's records of them."""
    return tuple(predicate(each.question.strip(), each.expected, "other") for each in given or ())


def require_asked(predicates: Sequence[Predicate], strategy: Strategy, promised: bool) -> None:
    """Raise `ApiError` where a strategy would not ask these predicates, or where a precision is promised, which holds
    for the model's own only."""
    if predicates and strategy.decompose is None:
        raise ApiError(
            422,
            "no_predicates",
            f"strategy {strategy.name!r} asks no predicates; leave `predicates` out, or choose one with the stage "
            "`decompose`, such as 'agent'",
        )
    if predicates and promised:
        raise ApiError(
            409,
            "not_promised",
            "a precision is promised for the predicates that the model derives; leave `predicates` or `precision` out",
        )

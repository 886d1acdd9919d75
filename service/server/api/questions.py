"""Predicates that a request brings, in place of those that the model would derive from the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field

from fieldscope.agent.nodes import decompose
from fieldscope.agent.strategies import predicates as given
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Predicate
from fieldscope.service.server.api.errors import ApiError


class GivenPredicate(given.GivenPredicate):
    """A yes/no question, the answer that a match must give, and how much that answer counts (1: as one that the model
    derived, 0: not at all)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


GivenPredicates = Annotated[list[GivenPredicate], Field(min_length=1, max_length=given.MOST_PREDICATES, fail_fast=True)]


def fixed_predicates(given: Sequence[GivenPredicate] | None) -> tuple[Predicate, ...]:
    """The agent's records of them."""
    return decompose.fixed_predicates(given or ())


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

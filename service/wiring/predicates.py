"""Predicates of a user's own: read from a file, and checked against what a strategy asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.service.wiring.bundled import require_known_words

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.agent.types import Predicate, RerankResult

GIVEN = "the predicates were given; P(match) was calibrated with those that the model derives"
"""The warning of a calibrated ranking with predicates of the user's own."""


def read_predicates(file: Path | None, strategy: Strategy, *, bundled: bool, promised: bool) -> tuple[Predicate, ...]:
    """The predicates in a file; none without one. Raises `ConfigError` where the strategy would not ask them, where a
    precision is promised, which holds for the model's own only, and, with a `bundled` LMM, for words that it does not
    know."""
    if file is None:
        return ()
    from fieldscope.agent.nodes.decompose import fixed_predicates
    from fieldscope.agent.strategies.predicates import read_given

    if strategy.decompose is None:
        raise ConfigError(
            f"strategy {strategy.name!r} asks no predicates. Leave --predicates out, or choose one with the stage "
            "`decompose`, such as agent."
        )
    if promised:
        raise ConfigError(
            "a precision is promised for the predicates that the model derives. Leave --predicates or --precision out."
        )
    predicates = fixed_predicates(read_given(file))
    if bundled:
        require_known_words([predicate.question for predicate in predicates], "lmm")
    return predicates


def given_flags(result: RerankResult, calibrated: bool) -> tuple[str, ...]:
    """The warning of a calibrated ranking whose predicates were given."""
    events = (event for event in result.trace if event.kind == "decomposed")
    return (GIVEN,) if calibrated and any(event.data.get("given") for event in events) else ()


def predicate_lines(predicates: Sequence[Predicate]) -> list[str]:
    """Predicates as the file that `--predicates` reads, one mapping for each."""
    import yaml

    rows = [
        {"question": each.question, "expected": each.expected} | ({"weight": each.weight} if each.weight != 1.0 else {})
        for each in predicates
    ]
    return yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=1000).splitlines()

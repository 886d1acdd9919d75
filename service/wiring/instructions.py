"""What a first stage makes of an instruction that says what a match is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fieldscope.service.wiring.feedback import warn

if TYPE_CHECKING:
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.retrieval.encoder import Encoder

UNREAD = (
    "the encoder reads no instruction, so this one changes nothing; leave it out, or name an encoder that reads one "
    "with --encoder"
)
"""The flag of a result that an instruction was given for, and had no effect on."""


def is_unread(strategy: Strategy, encoder: Encoder) -> bool:
    """Whether the strategy has an instruction for the first stage that the encoder does not read."""
    return strategy.retrieve.instruction is not None and "instruction" not in encoder.uses


def warn_of_unread_instruction(strategies: Iterable[Strategy], encoder: Encoder) -> None:
    """Warn, once for all strategies, where the encoder does not read the instruction of one."""
    if any(is_unread(strategy, encoder) for strategy in strategies):
        warn(UNREAD)

"""What a node of the graph gets beside the state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from fieldscope.agent.budget import Account
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.core.errors import ConfigError

SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True)
class Context:
    """One query's resources and strategy, with its model and its account.

    `lmm` answers only within the budget of `account`; it is None where there is no model.
    """

    resources: Resources
    strategy: Strategy
    lmm: LMM | None = None
    account: Account = field(default_factory=Account)

    def asking(self, settings: SettingsT | None) -> tuple[SettingsT, LMM]:
        """A stage's settings and the model that it asks. Raises `ConfigError` where either is missing."""
        if settings is None or self.lmm is None:
            raise ConfigError(
                f"strategy {self.strategy.name!r} does not have this stage, or there is no model to ask; "
                "add the stage to the strategy, and name a model with --lmm"
            )
        return settings, self.lmm

"""What a node of the graph gets beside the state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from fieldscope.agent.budget import Account
from fieldscope.agent.lmm.base import LMM
from fieldscope.agent.resources import Resources
from fieldscope.agent.roles import LMMs, Role
from fieldscope.agent.strategies.stage import AskingStage
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.strategies.verification import Verify
from fieldscope.core.errors import ConfigError

StageT = TypeVar("StageT", bound=AskingStage)


@dataclass(frozen=True)
class Context:
    """One query's resources and strategy, with its models and its account.

    `lmm` is one model for all roles or that of each, and answers only within the budget of `account`; it is None where
    there is no model. Where all answers are `stored`, the tasks of a wave are one task of the graph.
    """

    resources: Resources
    strategy: Strategy
    lmm: LMM | LMMs | None = None
    account: Account = field(default_factory=Account)
    stored: bool = False
    _worded: dict[str, Verify] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def gate(self) -> asyncio.Semaphore:
        """Lets as many tasks of a wave run at once as the graph does where each is a step of its own."""
        return asyncio.Semaphore(self.resources.max_concurrency)

    def asking(self, settings: StageT | None) -> tuple[StageT, LMM]:
        """A stage's settings and the model of its role. Raises `ConfigError` where either is missing."""
        if settings is None:
            raise ConfigError(
                f"strategy {self.strategy.name!r} does not have this stage; add the stage to the strategy"
            )
        return settings, self.model(settings.asks)

    def worded(self, settings: Verify, query: str) -> Verify:
        """The strategy's settings for this query; made once, since all tasks of a wave have the same one."""
        if query not in self._worded:
            self._worded[query] = settings.about(query)
        return self._worded[query]

    def model(self, role: Role) -> LMM:
        """The model of a role. Raises `ConfigError` where it has none."""
        lmm = LMMs.of(self.lmm).get(role)
        if lmm is None:
            raise no_model(self.strategy.name, role)
        return lmm


def no_model(strategy: str, role: Role) -> ConfigError:
    """The error of a strategy that asks a role without a model."""
    return ConfigError(
        f"strategy {strategy!r} asks a {role}, but no model has this role; give one with --lmm {role}=URL#NAME, or one "
        "for all roles with --lmm URL --model NAME"
    )

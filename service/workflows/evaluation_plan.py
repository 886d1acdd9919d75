"""What to evaluate: a benchmark, strategies, and the models that they ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.service.wiring.benchmarks import Workload
from fieldscope.service.wiring.settings import Settings

if TYPE_CHECKING:
    from fieldscope.agent.budget import Budget
    from fieldscope.agent.roles import Role
    from fieldscope.agent.strategies.strategy import Strategy
    from fieldscope.core.types import ImageSource
    from fieldscope.eval.queries import Selection

RUNS = Path("runs")
"""The folder for runs of which the user does not say where they go."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate on: a benchmark by name or path, its split (None: test), and which of its queries.

    `out` is the folder for the runs, a folder per strategy, by default `runs/BENCHMARK-SPLIT`. Each query may spend
    `budget`, and all queries of a strategy together `run_budget`. `choices` are settings of the benchmark's protocol,
    `metrics` the names of what is computed beside its own. Every request is made under the `seed`; scores of a scoring
    model, which takes none, are asked for again and not remembered under a seed other than 0. `ray` is the address of
    a Ray cluster whose workers rank the queries (`fieldscope.service.wiring.cluster.connected`); None: this
    process.
    """

    benchmark: str
    split: str | None = None
    selection: Selection | None = None
    limit: int | None = None
    out: Path | None = None
    budget: Budget | None = None
    run_budget: Budget | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    seed: int = 0
    ray: str | None = None

    @property
    def suffix(self) -> str:
        """What distinguishes the folder of these runs from that of all queries under the usual protocol."""
        chosen = "".join(f"-{name}-{value}" for name, value in self.choices.items())
        return (self.selection.suffix if self.selection else "") + chosen


@dataclass(frozen=True)
class Contest:
    """Strategies, and the models that they ask. `flags` are the warnings that their runs carry, `contexts` the models'
    context lengths in tokens, by role, where they are known."""

    settings: Settings
    strategies: Sequence[Strategy]
    flags: tuple[str, ...] = ()
    contexts: Mapping[Role, int] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether any of the strategies asks the LMM."""
        return any(strategy.prompts for strategy in self.strategies)

    def roles(self, composed: bool = True) -> tuple[Role, ...]:
        """The roles that the strategies ask: for queries with a reference image, where `composed`, else for others."""
        return tuple(dict.fromkeys(role for strategy in self.strategies for role in strategy.roles(composed)))


@dataclass(frozen=True)
class OpenEvaluation:
    """An evaluation that is checked and can begin: the opened benchmark, the strategies by model, and the plan with
    its folder filled in."""

    plan: EvaluationPlan
    workload: Workload
    contests: tuple[Contest, ...]
    out: Path

    @cached_property
    def images(self) -> ImageSource:
        """The benchmark's images, with every closer look at them; a recording's are those that it has hashes of."""
        from fieldscope.retrieval.looked_at import with_looks

        images = self.workload.benchmark.images
        return images if self.workload.recording is not None else with_looks(images)

    @property
    def flags(self) -> tuple[str, ...]:
        """The warnings that any of the runs carries."""
        return tuple(dict.fromkeys(flag for contest in self.contests for flag in contest.flags))

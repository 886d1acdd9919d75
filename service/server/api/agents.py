"""The strategies of the service, and an agent for each combination of strategy and options, built once and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.agent.graph import Agent
from fieldscope.agent.resources import CandidateScorer, Resources, Retriever
from fieldscope.agent.roles import model_text
from fieldscope.agent.strategies.ordering import Explain
from fieldscope.agent.strategies.strategy import Strategy, list_strategies, load_strategy
from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.retrieval.lru import ByteLru
from fieldscope.service.server.api.errors import ApiError
from fieldscope.service.wiring.calibrations import find_calibration

if TYPE_CHECKING:
    from fieldscope.agent.roles import LMMs
    from fieldscope.core.types import ImageSource
    from fieldscope.prompts.prompt import Prompt
    from fieldscope.prompts.prompt_set import PromptSet
    from fieldscope.retrieval.regions import RegionProposer

_KEPT = 64  # agents; a graph takes some 10 ms to build
_SHOWN = 64  # characters of an unknown name


def load_strategies(paths: Iterable[Path], prompts: PromptSet) -> dict[str, Strategy]:
    """The shipped strategies, and those in the given files and folders, by their names, worded by a prompt set. Raises
    `ConfigError` for a file that can't be used, and for a name that occurs twice."""
    strategies = {name: load_strategy(name, prompts=prompts) for name in list_strategies()}
    for path in paths:
        files = sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{path} has no strategies. Name a folder with .yaml files")
        for file in files:
            strategy = load_strategy(file, prompts=prompts)
            if strategy.name in strategies:
                raise ConfigError(f"{file}: another strategy is called {strategy.name!r}. Give this one another name")
            strategies[strategy.name] = strategy
    return strategies


class Agents:
    """Agents over one model and one source of pictures. `default` is the strategy of a call that names none, `explain`
    the prompt for reasons where a strategy has none of its own.

    Raises `ConfigError` where that is not among the strategies.
    """

    def __init__(
        self,
        strategies: Mapping[str, Strategy],
        default: str,
        lmms: LMMs,
        images: ImageSource,
        max_concurrency: int,
        explain: Prompt,
        regions: RegionProposer | None = None,
    ) -> None:
        if default not in strategies:
            raise ConfigError(unknown_name("strategy", default, strategies))
        self._strategies = strategies
        self._default = default
        self._lmms = lmms
        self._images = images
        self._max_concurrency = max_concurrency
        self._explain = explain
        self._regions = regions
        self._kept: ByteLru[Agent] = ByteLru(_KEPT)

    def forget(self) -> None:
        """Drop the agents that are kept: a collection that they search was replaced."""
        self._kept = ByteLru(_KEPT)

    def strategy(self, name: str | None) -> Strategy:
        """By its name, never by a path; None is the default. Raises `ApiError`."""
        if name is None:
            return self._strategies[self._default]
        if name not in self._strategies:
            raise ApiError(400, "unknown_strategy", unknown_name("strategy", name[:_SHOWN], self._strategies))
        return self._strategies[name]

    def strategies(self) -> Sequence[Strategy]:
        """All of them, the default first."""
        first = self._strategies[self._default]
        return [first, *(strategy for strategy in self._strategies.values() if strategy is not first)]

    def agent(
        self,
        strategy: Strategy,
        explain: int,
        encoder: str | None,
        retriever: tuple[str, Retriever] | None = None,
        scorer: CandidateScorer | None = None,
        *,
        keep: bool = True,
    ) -> Agent:
        """The agent for a strategy whose priors come from the encoder of this fingerprint (None: there are no priors),
        with reasons for the best `explain` images. `retriever` is a collection's name and its first stage, `scorer` is
        what the strategy's stage `score` asks. An agent that is not to `keep` is made for this call."""
        explained = explaining(strategy, explain, self._explain)
        model = self._lmms.identity(explained.roles())
        instruction = strategy.retrieve.instruction
        place, scored_by = retriever and retriever[0], scorer.fingerprint if scorer is not None else None
        key = (model_text(model), strategy.name, instruction, explain, encoder, place, scored_by)
        agent = self._kept.get(key) if keep else None
        if agent is None:
            calibration = find_calibration(model, explained, encoder, scored_by)
            search = retriever[1] if retriever else None
            resources = Resources(self._images, self._lmms, search, self._max_concurrency, calibration, scorer=scorer)
            agent = Agent(replace(resources, regions=self._regions), explained)
            if keep:
                self._kept.put(key, agent, 1)
        return agent


def explaining(strategy: Strategy, images: int, prompt: Prompt) -> Strategy:
    """The strategy with reasons for this many of the best images, asked for with its own prompt or else with this one;
    0 leaves them out."""
    if not images:
        return strategy.model_copy(update={"explain": None})
    stage = strategy.explain or Explain(prompt=prompt, top_k=images)
    return strategy.model_copy(update={"explain": stage.model_copy(update={"top_k": images})})

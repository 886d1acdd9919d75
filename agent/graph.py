"""The whole flow: retrieve (or take given candidates) -> plan <-> verify, in waves -> rank."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy

from agent.deps import Deps
from agent.nodes.plan import plan
from agent.nodes.rank import rank
from agent.nodes.retrieve import retrieve
from agent.nodes.verify import unforeseen, verify
from agent.state import RerankInput, RerankOutput, RerankState, VerifyTask
from agent.strategies.strategy import Strategy
from agent.types import RerankResult
from core.errors import ConfigError
from core.types import Candidate, Query

Graph = CompiledStateGraph[RerankState, None, RerankInput, RerankOutput]

NO_RETRY = RetryPolicy(max_attempts=1, retry_on=())
"""The door to the model retries what can pass; LangGraph's default would also retry whatever it does not know."""


def build_graph(deps: Deps, strategy: Strategy) -> Graph:
    """The graph of one strategy, from a `RerankInput` to a `RerankOutput`.

    Raises `ConfigError` where the strategy asks a model and there is none.
    """
    if strategy.verify is not None and deps.lmm is None:
        raise ConfigError(f"strategy {strategy.name!r} asks a model, but there is none; name one with --lmm")
    graph = StateGraph(RerankState, input_schema=RerankInput, output_schema=RerankOutput)
    graph.add_node("retrieve", partial(retrieve, deps=deps, strategy=strategy), input_schema=RerankState)
    graph.add_node("plan", partial(plan, strategy=strategy), input_schema=RerankState, destinations=("verify", "rank"))
    graph.add_node(
        "verify",
        partial(verify, deps=deps, strategy=strategy),
        input_schema=VerifyTask,
        retry_policy=NO_RETRY,
        error_handler=cast(Any, unforeseen),  # LangGraph's type of a handler leaves its NodeError out
    )
    graph.add_node("rank", partial(rank, deps=deps, strategy=strategy), input_schema=RerankState)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "plan")
    graph.add_edge("verify", "plan")
    graph.add_edge("rank", END)
    return graph.compile(name=strategy.name)


class Agent:
    """One strategy, ready to rerank. Any number of queries may run at once."""

    def __init__(self, deps: Deps, strategy: Strategy) -> None:
        self.deps = deps
        self.strategy = strategy
        self.graph = build_graph(deps, strategy)

    async def rerank(
        self, query: Query, candidates: Sequence[Candidate] | None = None, top_k: int | None = None
    ) -> RerankResult:
        """Rank `candidates`, or where none are given those that the retriever finds, and say why.

        `top_k` bounds how many take part, best prior first. A model call that fails leaves an unknown verdict in the
        result. Raises `ConfigError` for unusable input, and whatever else was raised on purpose, such as
        `CacheMissError` from a replay.
        """
        given = None if candidates is None else tuple(candidates)
        output = await self.graph.ainvoke(
            RerankInput(query=query, given=given, top_k=top_k), {"max_concurrency": self.deps.max_concurrency}
        )
        return RerankOutput.model_validate(output).result

"""The whole flow, one stage a file: synthesize, retrieve, decompose, check, plan <-> verify, assess, pair <-> compare,
rank, explain.

A strategy without a stage has no node for it. `check` and `assess` may send the query round again from `synthesize`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.nodes.assess import assess
from fieldscope.agent.nodes.check import check
from fieldscope.agent.nodes.compare import compare, compare_unforeseen
from fieldscope.agent.nodes.decompose import decompose
from fieldscope.agent.nodes.explain import explain
from fieldscope.agent.nodes.pair import pair
from fieldscope.agent.nodes.plan import plan
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.nodes.retrieve import retrieve
from fieldscope.agent.nodes.synthesize import synthesize
from fieldscope.agent.nodes.verify import unforeseen, verify
from fieldscope.agent.resources import QueryContext, Resources
from fieldscope.agent.state import CompareTask, RerankInput, RerankOutput, RerankState, VerifyTask
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import RerankResult, TraceEvent
from fieldscope.core.errors import ConfigError
from fieldscope.core.types import Candidate, Query

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

Graph = CompiledStateGraph[RerankState, QueryContext, RerankInput, RerankOutput]

Watch = Callable[[TraceEvent], None]
"""Is told each trace event as it happens, on the event loop; what it raises ends the query."""

NO_RETRY = RetryPolicy(max_attempts=1, retry_on=())
"""The door to the model retries what can pass; LangGraph's default would also retry whatever it does not know."""


def build_graph(deps: Resources, strategy: Strategy) -> Graph:
    """The graph of one strategy, from a `RerankInput` to a `RerankOutput`, with a `QueryContext` as its context.

    Raises `ConfigError` where the strategy asks a model and there is none.
    """
    if strategy.prompts and deps.lmm is None:
        raise ConfigError(f"strategy {strategy.name!r} asks a model, but there is none; name one with --lmm")
    graph = StateGraph(RerankState, QueryContext, input_schema=RerankInput, output_schema=RerankOutput)
    bind = partial(_bound, deps=deps, strategy=strategy)
    stages = [name for name in ("synthesize", "retrieve", "decompose") if name == "retrieve" or getattr(strategy, name)]
    nodes = {"synthesize": synthesize, "retrieve": retrieve, "decompose": decompose}
    for name in stages:
        graph.add_node(name, bind(nodes[name]), input_schema=RerankState)
    if strategy.check:
        checked = ("synthesize", "plan") if strategy.refine else ("plan",)
        graph.add_node("check", bind(check), input_schema=RerankState, destinations=checked)
        graph.add_edge("decompose", "check")
    after_verify = "pair" if strategy.compare else "rank"
    if strategy.verify:
        assessed = ("synthesize", after_verify) if strategy.refine else (after_verify,)
        graph.add_node("plan", bind(plan), input_schema=RerankState, destinations=("verify", "assess"))
        graph.add_node("assess", bind(assess), input_schema=RerankState, destinations=assessed)
        graph.add_node(
            "verify",
            bind(verify),
            input_schema=VerifyTask,
            retry_policy=NO_RETRY,
            error_handler=cast(Any, unforeseen),  # LangGraph's type of a handler leaves its NodeError out
        )
        graph.add_edge("verify", "plan")
        if not strategy.check:
            stages.append("plan")
    if strategy.compare:
        graph.add_node("pair", bind(pair), input_schema=RerankState, destinations=("compare", "rank"))
        graph.add_node(
            "compare",
            bind(compare),
            input_schema=CompareTask,
            retry_policy=NO_RETRY,
            error_handler=cast(Any, compare_unforeseen),
        )
        graph.add_edge("compare", "pair")
        if not strategy.verify:
            stages.append("pair")
    if not (strategy.verify or strategy.compare):
        stages.append("rank")
    graph.add_node("rank", bind(rank), input_schema=RerankState)
    graph.add_node("explain", bind(explain), input_schema=RerankState)
    for before, after in zip((START, *stages), stages, strict=False):
        graph.add_edge(before, after)
    graph.add_edge("rank", "explain")
    graph.add_edge("explain", END)
    return graph.compile(name=strategy.name)


def _bound(node: Callable[..., Any], deps: Resources, strategy: Strategy) -> Any:
    """A stage with what it needs."""

    async def run(state: Any, runtime: Runtime[QueryContext]) -> Any:
        done = node(state, runtime, deps=deps, strategy=strategy)
        return await done if isawaitable(done) else done

    return run


class Agent:
    """One strategy, ready to rerank. Any number of queries may run at once; all of them spend from `account`."""

    def __init__(self, deps: Resources, strategy: Strategy, account: Account | None = None) -> None:
        self.deps = deps
        self.strategy = strategy
        self.account = account
        self.graph = build_graph(deps, strategy)

    async def rerank(
        self,
        query: Query,
        candidates: Sequence[Candidate] | None = None,
        top_k: int | None = None,
        budget: Budget | None = None,
        watch: Watch | None = None,
    ) -> RerankResult:
        """Rank `candidates`, or where none are given those that the retriever finds, and say why.

        `top_k` bounds how many take part, best prior first; `budget` what may be spent on this query. `watch` gets
        every event of the result's trace once, in the order in which they happen. A model call that fails leaves an
        unknown verdict in the result, one that the budget forbids is not asked. Raises `ConfigError` for unusable
        input, and whatever else was raised on purpose, such as `CacheMissError` from a replay.
        """
        account = Account(budget, self.account)
        lmm = BudgetedLMM(self.deps.lmm, account) if self.deps.lmm else None
        given = None if candidates is None else tuple(candidates)
        asked = RerankInput(query=query, given=given, top_k=top_k, started=time.monotonic())
        config: RunnableConfig = {"max_concurrency": self.deps.max_concurrency, "recursion_limit": 1000}
        session = QueryContext(lmm, account)
        if watch is None:
            output = await self.graph.ainvoke(asked, config, context=session)
            return RerankOutput.model_validate(output).result
        result: RerankResult | None = None
        async for updates in self.graph.astream(asked, config, context=session, stream_mode="updates"):
            for update in updates.values():
                for event in (update or {}).get("trace", ()):
                    watch(event)
                result = (update or {}).get("result", result)
        return RerankOutput.model_validate({"result": result}).result

"""The whole flow, one stage a file: synthesize, retrieve, score, decompose, check, plan <-> verify, assess,
pair <-> compare, rank, explain.

A strategy without a stage has no node for it. `check` and `assess` may send the query back to `synthesize`. Nodes are
plain functions of state and context; only this module knows LangGraph.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from inspect import isawaitable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langgraph.errors import NodeCancelledError, NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy, Send

from fieldscope.agent.budget import Account, Budget, BudgetedLMM
from fieldscope.agent.call import one_line
from fieldscope.agent.context import Context, no_model
from fieldscope.agent.lmm.base import Stored
from fieldscope.agent.nodes.assess import assess
from fieldscope.agent.nodes.check import check
from fieldscope.agent.nodes.compare import compare
from fieldscope.agent.nodes.compare import failed as compare_failed
from fieldscope.agent.nodes.decompose import decompose, fixed_predicates
from fieldscope.agent.nodes.explain import explain
from fieldscope.agent.nodes.inspect import inspect
from fieldscope.agent.nodes.lost import lost_stages
from fieldscope.agent.nodes.pair import pair
from fieldscope.agent.nodes.plan import plan
from fieldscope.agent.nodes.rank import rank
from fieldscope.agent.nodes.retrieve import retrieve
from fieldscope.agent.nodes.score import no_scorer, score, score_predicates
from fieldscope.agent.nodes.synthesize import synthesize
from fieldscope.agent.nodes.verify import failed as verify_failed
from fieldscope.agent.nodes.verify import verify
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import CompareTask, Next, RerankInput, RerankOutput, RerankState, VerifyTask
from fieldscope.agent.strategies.predicates import given_for
from fieldscope.agent.strategies.strategy import Strategy
from fieldscope.agent.types import Call, Predicate, RerankResult, TraceEvent
from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.types import Candidate, Query

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

Builder = StateGraph[RerankState, Context, RerankInput, RerankOutput]
Graph = CompiledStateGraph[RerankState, Context, RerankInput, RerankOutput]

Node = Callable[[Any, Context], Any]
"""From the state, or one task of a wave, to an update of the state, or to a `Next`; perhaps as a coroutine."""

Failed = Callable[[Any, str], dict[str, Any]]
"""From a task that failed as a whole, and why, to an update of the state."""

Watch = Callable[[TraceEvent], None]
"""Gets each trace event as it happens, on the event loop; an error that it raises ends the query."""

_MOST_TASKS = 1000  # of a wave

NO_RETRY = RetryPolicy(max_attempts=1, retry_on=())
"""The model's client repeats calls where that can help; LangGraph's default would repeat on every unknown error."""


def build_graph(strategy: Strategy) -> Graph:
    """The graph of one strategy, from a `RerankInput` to a `RerankOutput`, with a `Context` for each query."""
    graph = StateGraph(RerankState, Context, input_schema=RerankInput, output_schema=RerankOutput)
    path = ["retrieve"]  # the stages that follow each other whatever they find
    if strategy.synthesize:
        _add(graph, "synthesize", synthesize)
        path.insert(0, "synthesize")
    _add(graph, "retrieve", retrieve)
    if strategy.score:
        _add(graph, "score", score)
        path.append("score")
    if strategy.decompose:
        _add(graph, "decompose", decompose)
        path.append("decompose")
    again = ("synthesize",) if strategy.refine else ()
    after_verify = "pair" if strategy.compare else "rank"
    if strategy.check:
        _add(graph, "check", check, choice=(*again, "plan", "assess"))
        path.append("check")
    if strategy.verify:
        scoring = ("score_predicates",) if strategy.score and strategy.score.predicates else ()
        inspecting = ("inspect",) if strategy.inspect else ()
        _add(graph, "plan", plan, choice=(*scoring, *inspecting, "verify", "assess"))
        if inspecting:
            _add(graph, "inspect", inspect)
            graph.add_edge("inspect", "plan")
        if scoring:
            _add(graph, "score_predicates", score_predicates)
            graph.add_edge("score_predicates", "plan")
        _add(graph, "assess", assess, choice=(*again, after_verify))
        _add_wave(graph, "verify", verify, VerifyTask, verify_failed, back="plan")
        if not strategy.check:
            path.append("plan")
    if strategy.compare:
        _add(graph, "pair", pair, choice=("compare", "rank"))
        _add_wave(graph, "compare", compare, CompareTask, compare_failed, back="pair")
        if not strategy.verify:
            path.append("pair")
    if not (strategy.verify or strategy.compare):
        path.append("rank")
    _add(graph, "rank", rank)
    _add(graph, "explain", explain)
    for before, after in pairwise((START, *path)):
        graph.add_edge(before, after)
    graph.add_edge("rank", "explain")
    graph.add_edge("explain", END)
    return graph.compile(name=strategy.name)


def _add(graph: Builder, name: str, node: Node, choice: tuple[str, ...] | None = None) -> None:
    """Add a stage; `choice` are the stages among which it chooses the next one."""
    graph.add_node(name, _adapted(node), input_schema=RerankState, destinations=choice)


def _add_wave(graph: Builder, name: str, node: Node, task: type, failed: Failed, back: str) -> None:
    """Add a stage that runs once for each task of a wave, and goes `back` to the stage that sends the next one."""

    def unforeseen(task: Any, error: NodeError) -> Command[str]:
        return Command(update=failed(task, _unforeseen(error.error)), goto=back)

    graph.add_node(
        name,
        _together(node, failed),
        input_schema=task,
        retry_policy=NO_RETRY,
        error_handler=cast(Any, unforeseen),  # LangGraph's type of a handler leaves its NodeError out
    )
    graph.add_edge(name, back)


def _adapted(node: Node) -> Any:
    """A node as LangGraph calls it."""

    async def run(state: Any, runtime: Runtime[Context]) -> Any:
        outcome = node(state, runtime.context)
        update = await outcome if isawaitable(outcome) else outcome
        if not isinstance(update, Next):
            return update
        tasks = _bundled(update.tasks, runtime.context)
        return Command(update=update.update, goto=[Send(update.node, task) for task in tasks] or update.node)

    return run


def _bundled(tasks: Sequence[Any], context: Context) -> Sequence[Any]:
    """The tasks of a wave as tasks of the graph: each by itself, or several as a tuple. One costs the graph more than a
    stored answer, and all together cost it time that grows with the square of their number."""
    size = len(tasks) if context.stored else math.ceil(len(tasks) / _MOST_TASKS)
    return tasks if size <= 1 else [tuple(tasks[first : first + size]) for first in range(0, len(tasks), size)]


def _together(node: Node, failed: Failed) -> Any:
    """A node as LangGraph calls it, with one task of a wave, or with several of them as a tuple."""
    alone = _adapted(node)

    async def run(task: Any, runtime: Runtime[Context]) -> Any:
        if not isinstance(task, tuple):
            return await alone(task, runtime)

        async def gated(each: Any) -> Any:
            async with runtime.context.gate:
                return await alone(each, runtime)

        outcomes = await asyncio.gather(*(gated(each) for each in task), return_exceptions=True)
        merged: defaultdict[str, list[Any]] = defaultdict(list)
        for each, outcome in zip(task, outcomes, strict=True):
            update = failed(each, _unforeseen(outcome)) if isinstance(outcome, BaseException) else outcome
            for name, values in update.items():
                merged[name].extend(values)
        return {name: tuple(values) for name, values in merged.items()}

    return run


def _unforeseen(error: BaseException) -> str:
    """One line about an unforeseen error of one task: its questions are unknown, and the other tasks continue.

    Errors that are raised on purpose (a replay's missing call, words outside a vocabulary) and cancellation do end the
    run. They are raised as copies: LangGraph takes an exception that it has handed over for handled, and would go on.
    """
    if isinstance(error, FieldscopeError | NodeCancelledError) or not isinstance(error, Exception):
        raise copy.copy(error) from error
    return f"unforeseen {type(error).__name__}: {one_line(error)}"


class Derived(NamedTuple):
    """What would be asked about each image, the calls that it took to know, and a warning for each stage that was
    lost."""

    predicates: tuple[Predicate, ...]
    calls: tuple[Call, ...]
    flags: tuple[str, ...]


class Agent:
    """One strategy, ready to rerank. Any number of queries may run at once; all of them spend from `account`."""

    def __init__(self, resources: Resources, strategy: Strategy, account: Account | None = None) -> None:
        """Raises `ConfigError` where the strategy asks a role that no model has, or scores without a scoring model."""
        if missing := resources.lmms.missing(strategy.roles(composed=False)):
            raise no_model(strategy.name, missing[0])
        if strategy.score and resources.scorer is None:
            raise no_scorer(strategy.name)
        self.resources = resources
        self.strategy = strategy
        self.account = account
        self.graph = build_graph(strategy)

    async def derive(self, query: Query, budget: Budget | None = None) -> Derived:
        """The predicates that the model derives from a query, before any image is asked about. A ranking of the same
        query finds the calls in the response cache. Raises `ConfigError` for a strategy without the stage
        decompose."""
        if self.strategy.decompose is None:
            raise ConfigError(
                f"strategy {self.strategy.name!r} asks no predicates. Choose one with the stage `decompose`, such as "
                "agent."
            )
        account = Account(budget, self.account)
        lmms = self.resources.lmms.wrapped(lambda lmm: BudgetedLMM(lmm, account, self.resources.seed))
        context = Context(self.resources, self.strategy, lmms, account)
        state = RerankState(query=query)
        for node in (synthesize, decompose):
            update = await node(state, context)
            state = state.model_copy(update={**update, "calls": (*state.calls, *update.get("calls", ()))})
        return Derived(state.predicates, state.calls, tuple(lost_stages(state)))

    async def rerank(
        self,
        query: Query,
        candidates: Sequence[Candidate] | None = None,
        top_k: int | None = None,
        budget: Budget | None = None,
        watch: Watch | None = None,
        predicates: Sequence[Predicate] = (),
    ) -> RerankResult:
        """Rank `candidates`, or where none are given those that the retriever finds, and say why.

        `top_k` bounds how many take part, best prior first; `budget` what may be spent on this query. `predicates` are
        asked in place of those that the stage decompose would derive; a strategy without it ignores them. `watch` gets
        every event of the result's trace once, in the order in which they happen. A model call that fails leaves an
        unknown verdict in the result, one that the budget forbids is not asked. Raises `ConfigError` for unusable
        input, and whatever else was raised on purpose, such as `CacheMissError` from a replay.
        """
        account = Account(budget, self.account)
        resources = self.resources
        lmms = resources.lmms.wrapped(lambda lmm: BudgetedLMM(lmm, account, resources.seed))
        stored = watch is None and all(isinstance(lmm, Stored) for lmm in resources.lmms.distinct())
        context = Context(resources, self.strategy, lmms, account, stored)
        given = None if candidates is None else tuple(candidates)
        fixed = tuple(predicates) or fixed_predicates(given_for(self.strategy.predicates, query.id, query.text))
        start = RerankInput(query=query, given=given, top_k=top_k, fixed=fixed, started=time.monotonic())
        config: RunnableConfig = {"max_concurrency": resources.max_concurrency, "recursion_limit": 1000}
        if watch is None:
            output = await self.graph.ainvoke(start, config, context=context)
            return RerankOutput.model_validate(output).result
        result: RerankResult | None = None
        async for updates in self.graph.astream(start, config, context=context, stream_mode="updates"):
            for update in updates.values():
                for event in (update or {}).get("trace", ()):
                    watch(event)
                result = (update or {}).get("result", result)
        return RerankOutput.model_validate({"result": result}).result

"""The graph for LangGraph Studio: `langgraph.json` points here.

The server calls the factory for every run, and whenever it draws the graph or reads its schemas. It refuses calls that
block its event loop, so files are read and models are loaded in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel, ConfigDict, Field

from fieldscope.agent.budget import Budget
from fieldscope.agent.graph import Agent, build_graph
from fieldscope.agent.resources import Resources
from fieldscope.agent.state import RerankOutput
from fieldscope.agent.strategies.strategy import Strategy, load_strategy
from fieldscope.agent.types import RerankResult
from fieldscope.core.errors import ConfigError, FieldscopeError
from fieldscope.core.validation import validated
from fieldscope.service.wiring.calibrations import find_calibration
from fieldscope.service.wiring.fieldnotes import open_fieldnotes
from fieldscope.service.wiring.models import bundled_lmm
from fieldscope.service.wiring.prompts import prompts_for
from fieldscope.service.wiring.queries import make_query, require_query_words
from fieldscope.service.wiring.settings import DEFAULT_STRATEGY, Settings

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langchain_core.runnables.graph import Graph as Drawing

_LOADING = threading.Lock()


class StudioContext(BaseModel):
    """How to rank, and what a run may spend; no limit where a field is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str = Field(
        default=DEFAULT_STRATEGY, description="A strategy's name, or the path of a file that ends in .yaml."
    )
    max_calls: int | None = Field(default=None, ge=0, description="At most so many calls to the LMM.")
    max_tokens: int | None = Field(default=None, ge=0, description="At most so many tokens, read and written.")
    deadline: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="No new call after so many seconds."
    )

    def budget(self) -> Budget:
        """The limits in the agent's words."""
        return Budget(self.max_calls, self.max_tokens, self.deadline)


class StudioInput(BaseModel):
    """A query over FieldNotes' test images."""

    model_config = ConfigDict(frozen=True)

    text: str = Field(description="What the images should show, in FieldNotes' words.")
    id: str = Field(default="query", description="The query's name in the result.")


class StudioState(StudioInput):
    """The query and, in the end, its ranking."""

    result: RerankResult | None = None


StudioGraph = CompiledStateGraph[StudioState, StudioContext, StudioInput, RerankOutput]


class _Stages(CompiledStateGraph[Any, Any, Any, Any]):
    """An agent's graph as Studio draws it inside of another: without the nodes for unforeseen errors, which no edge
    leads to. A graph with several beginnings can't be drawn there."""

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Drawing:
        drawing = await super().aget_graph(config, xray=xray)
        linked = {end for edge in drawing.edges for end in (edge.source, edge.target)}
        for node in [node for node in drawing.nodes.values() if node.id not in linked]:
            drawing.remove_node(node)
        return drawing


async def make_graph(runtime: ServerRuntime[Any]) -> StudioGraph:
    """A graph of one node, in which an agent ranks FieldNotes' test pictures with the bundled models, under the
    context's strategy. Each run has a budget of its own. Raises `RuntimeError` for a context that can't be used."""
    execution = runtime.execution_runtime
    with _server_errors():
        return await asyncio.to_thread(_build, (execution and execution.context) or {})


def _build(values: Mapping[str, Any]) -> StudioGraph:
    # Names that begin with two underscores are the server's own.
    chosen = {name: value for name, value in values.items() if not name.startswith("__")}
    context = validated(StudioContext, chosen, "context", ConfigError)
    strategy = load_strategy(context.strategy, prompts=prompts_for(Settings()))

    async def rerank(state: StudioInput) -> dict[str, Any]:
        with _server_errors():
            query = make_query(state.text).model_copy(update={"id": state.id})
            await asyncio.to_thread(require_query_words, query, lmm=bool(strategy.prompts), clip=True)
            agent = Agent(await asyncio.to_thread(_resources, strategy), strategy)
            result = await agent.rerank(query, budget=context.budget())
            return {"result": result.model_dump(mode="json")}  # so that a thread holds plain JSON

    graph = StateGraph(StudioState, StudioContext, input_schema=StudioInput, output_schema=RerankOutput)
    graph.add_node("rerank", cast(Any, rerank), input_schema=StudioInput)
    graph.add_edge(START, "rerank")
    graph.add_edge("rerank", END)
    compiled = graph.compile(name="rerank")
    compiled.nodes["rerank"].subgraphs = [_stages(strategy)]
    return compiled


def _stages(strategy: Strategy) -> _Stages:
    """The stages of a strategy, for the drawing: they have no models and can't run."""
    shown = build_graph(strategy)
    return _Stages(**{name: value for name, value in vars(shown).items() if name != "__orig_class__"})


def _resources(strategy: Strategy) -> Resources:
    """The resources of a run, with the calibration that fits its strategy."""
    with _LOADING:
        resources, identity, encoder = _bundled()
    return replace(resources, calibration=find_calibration(identity, strategy, encoder))


@cache
def _bundled() -> tuple[Resources, str, str]:
    """Pictures, first stage and LMM for all runs of a server, the LMM's identity and the CLIP's fingerprint.

    Answers are not cached: the cache's file is read on the event loop.
    """
    images, library = open_fieldnotes("test", Settings())
    lmm = bundled_lmm(images)
    return Resources(images=images, lmm=lmm, retriever=library), lmm.identity, library.encoder.fingerprint


@contextmanager
def _server_errors() -> Iterator[None]:
    """Raise `RuntimeError` instead of errors of our own, whose messages the server would hide."""
    try:
        yield
    except FieldscopeError as error:
        raise RuntimeError(str(error)) from error

"""The graph for LangGraph Studio: `langgraph.json` points here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.graph import Graph


def make_graph() -> Graph:
    """The graph of the strategy `agent` over the bundled models and the bundled collection."""
    from agent.graph import build_graph
    from agent.strategies.strategy import load_strategy
    from service.wiring import studio_deps

    strategy = load_strategy("agent")
    return build_graph(studio_deps(strategy), strategy)

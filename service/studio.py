"""The graph for LangGraph Studio: `langgraph.json` points here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.graph import Graph


def make_graph() -> Graph:
    """The graph of the strategy `yes-no-fused` over the bundled models and the bundled collection."""
    from agent.graph import build_graph
    from agent.strategies.strategy import load_strategy
    from service.wiring import studio_deps

    return build_graph(studio_deps(), load_strategy("yes-no-fused"))

"""The reasoning: one LangGraph graph that lets a model look at every candidate, and ranks with reasons."""

__all__: list[str] = []

"""Strategies: named, declarative choices of stages, prompts, model settings and fusion, one YAML file each."""

__all__: list[str] = []

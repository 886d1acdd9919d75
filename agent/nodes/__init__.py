"""The stages of the graph, one file each; every one is a function that can be called and tested alone."""

__all__: list[str] = []

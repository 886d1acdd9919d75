"""One file per prompt: its declared variables, the name of its answer's schema, and its wording."""

__all__: list[str] = []

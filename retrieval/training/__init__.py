"""Fine-tuning of a retriever: its data, hard negatives, the loop, the stages, and the models that learn."""

__all__: list[str] = []

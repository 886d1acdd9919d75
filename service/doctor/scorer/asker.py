"""Asks a scorer, counts the calls, and takes only finite scores for scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fieldscope.core.errors import LMMResponseError
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document, Scorer

Score = float | None


class Asker:
    """The scorer, and how many `calls` it had."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.calls = 0

    def score(self, query: QueryInputs | str, documents: Sequence[Document]) -> list[Score]:
        """One call: a score for each document, None where there is no finite one. Raises what the scorer raises, and
        `LMMResponseError` where it returns fewer or more scores than documents."""
        inputs = QueryInputs(query) if isinstance(query, str) else query
        self.calls += 1
        scores = self.scorer.score(inputs, documents)
        if len(scores) != len(documents):
            raise LMMResponseError(
                f"the scorer gave {len(scores)} scores for {len(documents)} documents: correct the scorer"
            )
        return [score if score is not None and math.isfinite(score) else None for score in scores]

    def alone(self, query: QueryInputs | str, documents: Sequence[Document]) -> list[Score]:
        """The score of each document in a call of its own."""
        return [self.score(query, [document])[0] for document in documents]

"""Asks a scorer, counts the calls, and takes only finite scores for scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from fieldscope.core.errors import ConfigError, LMMRequestError, LMMResponseError
from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.retrieval.scorer import Document, ExplainingScorer, PairScore, Scorer

Score = float | None

REFUSALS = (ConfigError, LMMRequestError, LMMResponseError)
"""What a scorer raises for a call that it does not take; other errors mean that it does not answer at all."""


class Asker:
    """The scorer, and how many calls it had."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._calls = 0
        self._counting = Lock()

    @property
    def requests(self) -> int:
        """The requests that a server had so far; of another scorer, the calls."""
        return self.scorer.requests if isinstance(self.scorer, ExplainingScorer) else self._calls

    def ask(self, query: QueryInputs | str, documents: Sequence[Document]) -> list[PairScore]:
        """One call: what the scorer says of each document, with a value of None where it gives no finite score. Raises
        what the scorer raises, and `LMMResponseError` where it returns fewer or more scores than documents."""
        inputs = QueryInputs(query) if isinstance(query, str) else query
        with self._counting:
            self._calls += 1
        if isinstance(self.scorer, ExplainingScorer):
            pairs = self.scorer.ask(inputs, documents)
        else:
            pairs = [PairScore(value) for value in self.scorer.score(inputs, documents)]
        if len(pairs) != len(documents):
            raise LMMResponseError(
                f"the scorer gave {len(pairs)} scores for {len(documents)} documents: correct the scorer"
            )
        return [pair if pair.value is None or math.isfinite(pair.value) else _not_finite(pair) for pair in pairs]

    def score(self, query: QueryInputs | str, documents: Sequence[Document]) -> list[Score]:
        """The scores alone."""
        return [pair.value for pair in self.ask(query, documents)]

    def alone(self, query: QueryInputs | str, documents: Sequence[Document]) -> list[Score]:
        """The score of each document in a call of its own."""
        return [self.score(query, [document])[0] for document in documents]


def _not_finite(pair: PairScore) -> PairScore:
    return replace(pair, value=None, error=f"the score is {pair.value}, which is no finite number")

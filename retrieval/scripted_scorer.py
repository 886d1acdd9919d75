"""A fake scorer for tests: it gives the scores that a function computes, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.retrieval.encoder import DocumentInputs, QueryInputs
from fieldscope.retrieval.scorer import Document, PairScore

Score = Callable[[QueryInputs, str], float | Exception | None]
"""The score of a query and a document, which comes as the SHA-256 of a picture's pixels or as its text; None for a
document that can't be judged. An exception is raised, as a server's failure would be."""


def _name(document: Document) -> str:
    if isinstance(document, DocumentInputs):
        return f"{fingerprint_pixels(document.image) if document.image else ''} {document.text}".strip()
    return document if isinstance(document, str) else fingerprint_pixels(document)


class ScriptedScorer:
    """A scorer that looks nowhere. `fingerprint` is whatever the test calls it."""

    def __init__(self, score: Score, fingerprint: str = "scripted", tokens: int = 0) -> None:
        self._score = score
        self._tokens = tokens
        self._lock = threading.Lock()
        self.fingerprint = fingerprint
        self.requests = 0
        self.asked: list[tuple[QueryInputs, str]] = []

    def score(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[float | None]:
        return [pair.value for pair in self.ask(inputs, documents)]

    def ask(self, inputs: QueryInputs, documents: Sequence[Document]) -> list[PairScore]:
        pairs = []
        for document in documents:
            name = _name(document)
            with self._lock:
                self.requests += 1
                self.asked.append((inputs, name))
            value = self._score(inputs, name)
            if isinstance(value, Exception):
                raise value
            pairs.append(PairScore(value, tokens=self._tokens))
        return pairs

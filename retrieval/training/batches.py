"""What a step of training sees: queries, and the documents among which each has to find its positive.

A batch follows from the seed, the stage and the step alone, so that training which was interrupted goes on as if it had
not been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from fieldscope.retrieval.training.mining import Mined
from fieldscope.retrieval.training.queries import Reading, TrainingQuery, TrainingSet


@dataclass(frozen=True)
class Source:
    """A set to draw queries from. `mined` are their hard negatives; without any, a query has the batch's other
    documents alone."""

    training: TrainingSet
    mined: Mapping[str, Mined] | None = None


@dataclass(frozen=True)
class Batch:
    """Queries, the documents of the batch, the row of each query's positive among them, and the documents, shape
    (queries, documents), that are no negatives of a query because they are positives of it, too."""

    queries: tuple[Reading, ...]
    documents: tuple[Reading, ...]
    positives: tuple[int, ...]
    ignored: NDArray[np.bool_]


def draw_batch(sources: Sequence[Source], size: int, seed: tuple[int, ...], step: int) -> Batch:
    """The batch of a step, `size` queries in equal parts from the sources. Each goes through its queries in an order
    that is another one in each round."""
    rng = default_rng((*seed, step))
    drawn: list[tuple[TrainingSet, TrainingQuery]] = []
    chosen: dict[tuple[str, str], None] = {}
    positives = []
    for number, source in enumerate(sources):
        share = size // len(sources) + (number < size % len(sources))
        for query in next_queries(source.training, share, (*seed, number), step):
            positive = (source.training.name, query.positives[rng.integers(len(query.positives))])
            chosen.setdefault(positive)
            drawn.append((source.training, query))
            positives.append(positive)
            if source.mined is not None:
                negative = _negative(source.training, query, source.mined[query.id], rng)
                chosen.setdefault((source.training.name, negative))
    place = {document: row for row, document in enumerate(chosen)}
    sets = {source.training.name: source.training for source in sources}
    ignored = np.zeros((len(drawn), len(place)), dtype=np.bool_)
    for row, (training, query) in enumerate(drawn):
        for document_id in query.positives:
            at = place.get((training.name, document_id))
            if at is not None and at != place[positives[row]]:
                ignored[row, at] = True
    return Batch(
        tuple(
            training.query(query, int(rng.integers(len(query.instructions))) if query.instructions else 0)
            for training, query in drawn
        ),
        tuple(sets[name].document(document_id) for name, document_id in chosen),
        tuple(place[positive] for positive in positives),
        ignored,
    )


def next_queries(training: TrainingSet, number: int, seed: tuple[int, ...], step: int) -> list[TrainingQuery]:
    """The queries of a step, so many; each round goes through all in another order."""
    total = len(training.queries)
    rounds = {}
    queries = []
    for at in range(step * number, (step + 1) * number):
        if at // total not in rounds:
            rounds[at // total] = default_rng((*seed, at // total)).permutation(total)
        queries.append(training.queries[rounds[at // total][at % total]])
    return queries


def _negative(training: TrainingSet, query: TrainingQuery, mined: Mined, rng: Generator) -> str:
    """One of a query's hard negatives, of either kind with equal chance; a random document where it has none."""
    kinds = [kind for kind in (mined.wrong_modality, mined.right_modality) if kind]
    if kinds:
        kind = kinds[rng.integers(len(kinds))]
        return kind[rng.integers(len(kind))].document
    positives = frozenset(query.positives)
    if positives.issuperset(training.pool):
        return query.positives[0]
    while (document := training.pool[rng.integers(len(training.pool))]) in positives:
        pass
    return document

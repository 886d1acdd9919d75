"""Metrics that a data set's own protocol adds, or counts otherwise than on all relevant images in one ranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fieldscope.agent.types import RerankResult
from fieldscope.core.documents import Modality
from fieldscope.core.types import Query
from fieldscope.eval.measures import metrics
from fieldscope.eval.measures.named import cut_off, is_metric
from fieldscope.eval.reported import TASK_HITS
from fieldscope.eval.types import Benchmark

BRI = "BRI"
"""PlugIR's Best log Rank Integral: no share, and better where it is lower."""

_SUBSET = "recall_subset@"

Orders = Mapping[str, Sequence[str]]
"""Query id -> image ids, best first."""


def protocol_values(benchmark: Benchmark, orders: Orders, names: Sequence[str]) -> dict[str, metrics.Values]:
    """Those of the metrics `names` that the protocol decides, along the queries of `orders`, which are the rankings as
    they are scored. A value is NaN where nothing can be said of a query."""
    protocol = benchmark.protocol
    found: dict[str, metrics.Values] = {}
    subsets = small_orders(benchmark, orders) if protocol.subsets else {}
    for name in names:
        if name.startswith(_SUBSET):
            k = int(name.removeprefix(_SUBSET))
            found[name] = np.array([_in_subset(benchmark, query_id, order, k) for query_id, order in subsets.items()])
        elif protocol.credits and is_metric(name) and cut_off(name)[0] == "recall":
            depth = cut_off(name)[1]
            found[name] = np.array([_credit(benchmark, query_id, order[:depth]) for query_id, order in orders.items()])
        elif name == BRI:
            found[name] = _best_rank_integrals(benchmark, orders)
        elif name == TASK_HITS:
            found[name] = np.array([_hit(benchmark, query_id, order) for query_id, order in orders.items()])
    return found


def small_orders(benchmark: Benchmark, orders: Orders) -> dict[str, list[str]]:
    """The order of each query's small gallery: that of its ranking and, of images that are not in it, that of the first
    stage. Without a first stage to ask, the order ends where the ranking does."""
    queries = {query.id: query for query in benchmark.queries}
    found = {}
    for query_id, order in orders.items():
        members = set(benchmark.protocol.subsets.get(query_id, ()))
        ranked = [image for image in order if image in members]
        if len(ranked) < len(members) and benchmark.beyond is not None:
            rest = members.difference(ranked)
            ranked += [image for image in benchmark.beyond(queries[query_id]) if image in rest]
        found[query_id] = ranked
    return found


def _hit(benchmark: Benchmark, query_id: str, order: Sequence[str]) -> float:
    """Whether any relevant document is found by the query's own depth; NaN for a query without one."""
    relevant = {document for document, judged in benchmark.judgments(query_id).items() if judged}
    depth = benchmark.protocol.cutoffs.get(query_id)
    return float(not relevant.isdisjoint(order[:depth])) if relevant and depth else math.nan


def modality_accuracies(benchmark: Benchmark, results: Iterable[RerankResult]) -> metrics.Values:
    """Whether the best document of each ranking is of the kind that its query wants; NaN for a query that wants no
    kind, and 0 for an empty ranking."""
    wanted = {query.id: query.wanted for query in benchmark.queries}
    return np.array([_modality_accuracy(wanted.get(result.query_id), result) for result in results])


def _modality_accuracy(wanted: Modality | None, result: RerankResult) -> float:
    if wanted is None:
        return math.nan
    return float(bool(result.ranking) and result.ranking[0].modality == wanted)


def _credit(benchmark: Benchmark, query_id: str, order: Sequence[str]) -> float:
    """The greatest credit of these images, at least 0; NaN for a query without judgments."""
    credits = benchmark.protocol.credits.get(query_id)
    return max([0.0, *(credits.get(image, 0.0) for image in order)]) if credits else math.nan


def _in_subset(benchmark: Benchmark, query_id: str, order: Sequence[str], k: int) -> float:
    """Whether a relevant image is among the best `k` of a small gallery. NaN for a query without judgments, and where
    the order ends too early to tell."""
    relevant = {image for image, judged in benchmark.judgments(query_id).items() if judged}
    if not relevant:
        return math.nan
    if relevant.intersection(order[:k]):
        return 1.0
    return 0.0 if len(order) >= min(k, len(benchmark.protocol.subsets.get(query_id, ()))) else math.nan


def _best_rank_integrals(benchmark: Benchmark, orders: Orders) -> metrics.Values:
    """The BRI of each dialogue, at its last query."""
    queries = {query.id: query for query in benchmark.queries}
    rows = {query_id: row for row, query_id in enumerate(orders)}
    values = np.full(len(rows), math.nan)
    for dialogue in benchmark.dialogues:
        ids = [query_id for query_id in dialogue if query_id in rows]
        if len(ids) > 1 and len(ids) == len(dialogue):
            ranks = [_rank(benchmark, queries[query_id], orders[query_id]) for query_id in ids]
            values[rows[ids[-1]]] = metrics.best_rank_integral(ranks)
    return values


def _rank(benchmark: Benchmark, query: Query, order: Sequence[str]) -> float:
    """The rank of the best relevant image: in the ranking, or behind it in the order of the first stage."""
    relevant = {image for image, judged in benchmark.judgments(query.id).items() if judged}
    at = next((rank for rank, image in enumerate(order, start=1) if image in relevant), None)
    if at is None and relevant and benchmark.beyond is not None:
        ranked = set(order)
        rest = [image for image in benchmark.beyond(query) if image not in ranked]
        at = next((rank for rank, image in enumerate(rest, start=len(order) + 1) if image in relevant), None)
    return math.nan if at is None else float(at)

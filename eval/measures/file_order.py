"""How the scores that come with a benchmark's candidates order them: it tells a data set from others of its shape."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fieldscope.eval.measures import metrics
from fieldscope.eval.types import Benchmark

WHOLE = "all"
"""The name of all queries, beside the supercategories."""


def file_order(benchmark: Benchmark, query_ids: Iterable[str]) -> dict[str, float]:
    """Mean AP@50 of the candidates in the order of the scores that came with them, whatever a run ranked by: over all
    queries that have something to find, and by supercategory; empty for full retrieval."""
    values: dict[str, list[float]] = {}
    for query_id in query_ids if benchmark.candidate_sets is not None else ():
        judged = benchmark.judgments(query_id)
        if positives := sum(judged.values()):
            candidates = (benchmark.candidate_sets or {})[query_id]
            listed = np.argsort([-candidate.prior for candidate in candidates], kind="stable")
            relevance = np.array([judged[candidate.image_id] for candidate in candidates])[listed]
            value = float(metrics.average_precision(relevance, positives, 50))
            meta = benchmark.meta.get(query_id)
            for group in filter(None, (WHOLE, meta.supercategory if meta else "")):
                values.setdefault(group, []).append(value)
    return {group: sum(of_group) / len(of_group) for group, of_group in values.items()}

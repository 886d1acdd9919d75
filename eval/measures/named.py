"""Metrics by their names, at any cut-off: AP@5, nDCG@20, RR, recall@25 (or R@25), P@3, hits@4."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from numpy.typing import ArrayLike

from fieldscope.core.errors import ConfigError
from fieldscope.eval.measures import metrics

Metric = Callable[[ArrayLike, ArrayLike], metrics.Values]
"""From relevance, shape (queries, depth), and positives, shape (queries,), to a value for each query."""

KINDS: dict[str, Callable[..., metrics.Values]] = {
    "AP": metrics.average_precision,
    "nDCG": metrics.ndcg,
    "RR": metrics.reciprocal_rank,
    "P": metrics.precision,
    "recall": metrics.recall,
    "hits": metrics.hits,
}
_SPELLINGS = {"r": "recall", "map": "AP", "mrr": "RR", "success": "hits", **{kind.lower(): kind for kind in KINDS}}
_NAME = re.compile(r"(?P<kind>[A-Za-z]+)(?:@(?P<k>[1-9]\d{0,5}))?")


def canonical(name: str) -> str:
    """A metric's one name: `recall@10` of R@10, `AP@5` of mAP@5. Raises `ConfigError` for a name that is none."""
    found = _NAME.fullmatch(name.strip())
    kind = _SPELLINGS.get(found["kind"].lower()) if found else None
    if found is None or kind is None or (found["k"] is None and kind != "RR"):
        kinds = ", ".join(KINDS)
        raise ConfigError(f"unknown metric {name!r}; use one of {kinds} with a cut-off, such as AP@5 or R@10")
    return f"{kind}@{found['k']}" if found["k"] else kind


def is_metric(name: str) -> bool:
    """Whether a name is one of a metric that any ranking has."""
    try:
        canonical(name)
    except ConfigError:
        return False
    return True


def cut_off(name: str) -> tuple[str, int | None]:
    """The kind of a metric and its cut-off, None for the whole ranking. Raises `ConfigError`."""
    kind, _, k = canonical(name).partition("@")
    return kind, int(k) if k else None


def metric(name: str) -> Metric:
    """The metric of this name. Raises `ConfigError` for a name that is none."""
    kind, k = cut_off(name)
    return partial(KINDS[kind], k=k)

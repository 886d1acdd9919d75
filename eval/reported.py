"""In which metrics a benchmark's results are reported: the headline, and what stands beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """The metrics in which the results of a benchmark are reported, the headline first.

    `overview` and `means` are means over queries, as `metrics.json` names them: those that stand beside the cost, and
    all of them. `compared` are what runs are compared in.
    """

    name: str
    overview: tuple[str, ...]
    means: tuple[str, ...]
    compared: tuple[str, ...]

    @property
    def mean(self) -> str:
        """The headline over all queries: `mAP@50`."""
        return self.overview[0]

    @property
    def headline(self) -> str:
        """The headline of a single query: `AP@50`."""
        return self.compared[0]

    @property
    def values(self) -> tuple[str, ...]:
        """`compared`, as `metrics.json` names the values of a single query."""
        return tuple(map(value_name, self.compared))


RIGHTLY = "rightly nothing"
"""The share of the queries without a match for which a run says that nothing matches."""

WRONGLY = "wrongly nothing"
"""The share of the queries with a match for which a run says that nothing matches: false alarms."""

GENERAL = Reported(
    "general",
    overview=("mAP@50", "nDCG@10", "MRR"),
    means=("mAP@50", "mAP@100", "nDCG@50", "nDCG@100", "MRR"),
    compared=("AP@50", "nDCG@50", "MRR"),
)
"""Of every benchmark that says nothing else."""

INQUIRE_RERANK = Reported(
    "inquire-rerank",
    overview=("mAP@100", "nDCG@100", "MRR"),
    means=("mAP@100", "nDCG@100", "MRR", "mAP@50", "nDCG@50"),
    compared=("AP@100", "nDCG@100", "MRR", "AP@50"),
)
"""What INQUIRE's rerank script prints: AP, nDCG and MRR over a query's whole list of 100 candidates. AP@50, which its
site shows, stands beside them."""

INQUIRE_FULLRANK = Reported(
    "inquire-fullrank",
    overview=("mAP@50", "nDCG@50", "MRR@50"),
    means=("mAP@50", "nDCG@50", "MRR@50", "P@50", "P@100"),
    compared=("AP@50", "nDCG@50", "MRR@50"),
)
"""What INQUIRE's scripts for full retrieval print at their default `--k 50`, and the precision at 100."""

UNMATCHED = Reported("unmatched", overview=(RIGHTLY,), means=(RIGHTLY,), compared=(RIGHTLY,))
"""In which runs are compared over queries without a match."""

RECALLS = Reported(
    "recalls",
    overview=("recall@1", "recall@5", "recall@10"),
    means=("recall@1", "recall@5", "recall@10", "recall@50", "MRR"),
    compared=("recall@1", "recall@5", "recall@10", "RR"),
)
"""Text to one image: Flickr30K and COCO."""

FASHIONIQ = Reported(
    "fashioniq",
    overview=("recall@10", "recall@50", "Avg"),
    means=("recall@10", "recall@50", "Avg"),
    compared=("recall@10", "recall@50"),
)

CIRR = Reported(
    "cirr",
    overview=("recall@5", "recall_subset@1", "Avg"),
    means=("recall@5", "recall@1", "recall@10", "recall@50", "Avg"),
    compared=("recall@5", "recall@1", "recall@10", "recall@50"),
)

CIRCO = Reported(
    "circo",
    overview=("mAP@5", "mAP@10", "recall@10"),
    means=("mAP@5", "mAP@10", "mAP@25", "mAP@50"),
    compared=("AP@5", "AP@10", "AP@25", "AP@50"),
)

VISDIAL = Reported(
    "visdial",
    overview=("recall@10", "recall@1", "MRR"),
    means=("recall@10", "recall@1", "recall@5", "hits@10"),
    compared=("recall@10", "recall@1", "RR"),
)
"""Recall is that of each round alone, so that every query has one; hits are a dialogue's."""

TASK_HITS = "hits@5/10"
"""Whether any positive is among the best 5, or among the best 10 of the fashion sets: M-BEIR's recall."""

MODALITY_ACCURACY = "MA@1"
"""The share of queries whose best document is of the kind that is wanted."""

MBEIR = Reported(
    "mbeir",
    overview=(TASK_HITS, MODALITY_ACCURACY, "MRR"),
    means=(TASK_HITS, MODALITY_ACCURACY, "hits@1", "hits@5", "hits@10", "hits@20", "hits@50"),
    compared=(TASK_HITS, MODALITY_ACCURACY, "hits@1", "hits@5", "hits@10"),
)

_ALL = (GENERAL, INQUIRE_RERANK, INQUIRE_FULLRANK, RECALLS, FASHIONIQ, CIRR, CIRCO, VISDIAL, MBEIR)
REPORTED = {each.name: each for each in _ALL}
"""By the names that `metrics.json` has."""


def reported_as(name: str) -> Reported:
    """What a run's `metrics.json` names; `GENERAL` for a name that this version does not know, and for runs of earlier
    versions, which have none."""
    return REPORTED.get(name, GENERAL)


def shared(each: Iterable[Reported]) -> Reported:
    """What several runs of one benchmark are reported in: that of the first that has its own."""
    return next((own for own in each if own != GENERAL), GENERAL)


def mean_name(metric: str) -> str:
    """The name of a metric's mean: `mAP@50` of AP@50, `MRR` of RR; others keep theirs."""
    if metric.startswith("AP@"):
        return f"m{metric}"
    return f"M{metric}" if metric == "RR" or metric.startswith("RR@") else metric


def value_name(metric: str) -> str:
    """The name of a single query's value: `RR` of MRR; other metrics keep theirs."""
    return metric[1:] if metric.startswith("MRR") else metric

"""In which metrics a benchmark's results are reported."""

from __future__ import annotations

import pytest

from fieldscope.eval.measures.scoring import METRICS
from fieldscope.eval.reported import (
    GENERAL,
    INQUIRE_FULLRANK,
    INQUIRE_RERANK,
    REPORTED,
    Reported,
    mean_name,
    reported_as,
    shared,
    value_name,
)
from fieldscope.eval.runs.read import Metrics

OF_PROTOCOLS = {"Avg", "recall_subset@1", "hits@5/10", "MA@1", "hits@20", "hits@50"}
"""What only a data set's own protocol defines, or reports at a depth of its own."""


@pytest.mark.parametrize("reported", REPORTED.values(), ids=REPORTED)
def test_every_name_is_a_metric(reported: Reported) -> None:
    assert set(reported.values) <= METRICS.keys() | OF_PROTOCOLS
    assert {*reported.overview, *reported.means} <= {mean_name(name) for name in METRICS} | OF_PROTOCOLS
    assert (mean_name(reported.headline), reported.overview[0]) == (reported.mean, reported.means[0])


@pytest.mark.parametrize(
    ("value", "mean"),
    [("AP@50", "mAP@50"), ("RR", "MRR"), ("RR@50", "MRR@50"), ("nDCG@50", "nDCG@50"), ("P@50", "P@50")],
)
def test_the_names_of_a_value_and_of_its_mean(value: str, mean: str) -> None:
    assert mean_name(value) == mean
    assert value_name(mean) == (value if mean.startswith("MRR") else mean)


def test_inquires_own() -> None:
    assert INQUIRE_RERANK.compared == ("AP@100", "nDCG@100", "MRR", "AP@50")
    assert {"MRR@50", "P@50", "P@100"} <= set(INQUIRE_FULLRANK.means)


def test_runs_of_other_versions_are_reported_as_ever() -> None:
    assert reported_as(Metrics(per_query={}).reported) == GENERAL == reported_as("of a later version")
    assert shared([GENERAL, INQUIRE_RERANK, GENERAL]) == INQUIRE_RERANK
    assert shared([GENERAL]) == shared([]) == GENERAL

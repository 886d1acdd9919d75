"""How often nothing is said to match, in a run's metrics and where runs are compared."""

from __future__ import annotations

import numpy as np
import pytest

from fieldscope.agent.types import RerankResult, TraceEvent
from fieldscope.eval.measures.nothing import nothing_values
from fieldscope.eval.reported import RIGHTLY, WRONGLY


def result(nothing: bool | None) -> RerankResult:
    data = {"answered": 1} | ({} if nothing is None else {"nothing": nothing})
    trace = (TraceEvent(kind="ranked", at=1.0, data=data),)
    return RerankResult(query_id="q", query_text="a fox", strategy="s", ranking=(), trace=trace)


def test_queries_with_and_without_a_match_are_counted_apart() -> None:
    values = nothing_values([result(True), result(False), result(True), result(False)], [0, 0, 3, 1])
    np.testing.assert_array_equal(values[RIGHTLY], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(values[WRONGLY], [np.nan, np.nan, 1, 0])


def test_an_undecided_query_was_not_said_to_match_nothing() -> None:
    values = nothing_values([result(True), result(None)], [0, 0])
    np.testing.assert_array_equal(values[RIGHTLY], [1, 0])


@pytest.mark.parametrize("positives", [[0, 0], [2, 0]])
def test_a_run_that_never_decides_has_no_share(positives: list[int]) -> None:
    values = nothing_values([result(None), result(None)], positives)
    assert all(np.isnan(of).all() for of in values.values())

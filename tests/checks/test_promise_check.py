"""The simulated populations of `checks/promise.py`, in a reduced form; and the check sees what is out of bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checks.population import Disturbance, fit_logistic, read_measured, sigmoid, simulate
from checks.promise import PRECISION, Outcome, Population, RefittedPopulation, boundary, coverage, failures, outcome
from fieldscope.eval.tuning.cutoff import GRID, LabelledQuery

DRAWS = 60


@pytest.fixture(scope="module")
def queries() -> list[LabelledQuery]:
    return simulate(read_measured(), 4000, Disturbance(), np.random.default_rng(0))


def test_the_promise_is_kept_and_recalls_most_of_what_the_oracle_does(queries: list[LabelledQuery]) -> None:
    one = outcome(Population("measured", queries), 160, DRAWS, 0)
    assert one.kept
    assert one.recall > 0.6
    few = outcome(Population("measured", queries), 28, DRAWS, 0)
    assert (few.refused, few.recall) == (1.0, 0.0)


def test_a_fit_to_the_same_queries_breaks_no_promise(queries: list[LabelledQuery]) -> None:
    one = outcome(RefittedPopulation("refitted", queries), 80, 20, 0)
    assert one.kept
    assert one.recall > 0.4


def test_no_more_is_promised_where_every_threshold_just_misses(queries: list[LabelledQuery]) -> None:
    population = Population("boundary", boundary(queries, np.random.default_rng(0)))
    strict = population.precision[GRID >= PRECISION]
    assert PRECISION - 0.01 < strict.max() < PRECISION
    assert outcome(population, 160, DRAWS, 0).kept


def test_intervals_hold_the_truth(queries: list[LabelledQuery]) -> None:
    covered = coverage(queries, 40, 0)
    assert min(covered.values()) >= 0.95 - 2 * (0.05 * 0.95 / 40) ** 0.5


def test_what_is_out_of_bounds_is_said() -> None:
    fine = Outcome("measured", 160, 1000, refused=0.0, broken=0.06, recall=0.9)
    assert failures([fine], {"above": 0.94}, 1000) == []
    wrong = [replace(fine, broken=0.07), replace(fine, recall=0.5), replace(fine, size=28, refused=0.9, recall=0.0)]
    assert len(failures(wrong, {"above": 0.93, "below": 0.99}, 1000)) == 4


def test_a_population_is_fitted_to_its_run() -> None:
    odds = np.random.default_rng(0).normal(0.0, 3.0, 20_000)
    matches = (np.random.default_rng(1).random(20_000) < sigmoid(0.5 + 0.8 * odds)).astype(np.float64)
    assert fit_logistic(odds, matches) == pytest.approx((0.5, 0.8), abs=0.06)
    still = Disturbance(of_query=0.0, of_image=0.0, relabelled=0.0)
    (same,) = simulate(
        [LabelledQuery(np.array([0.9, 0.2]), np.array([1.0, 0.0]), 3)], 1, still, np.random.default_rng(0)
    )
    assert same.p_match == pytest.approx([0.9, 0.2])
    assert (same.matches.tolist(), same.positives) == ([1.0, 0.0], 3)

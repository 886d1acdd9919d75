"""A population of labelled queries that resembles a measured run, for checks that need more queries than any split has.

Each of its queries is one of the run's, drawn at random, with three changes:

- the log-odds of all its images move together (a query is easier or harder for the model than the one it comes from),
  and those of each image by themselves; both by a normal distribution;
- the labels of some of its images are drawn again, as often right as P(match) was in the run: by the logistic
  regression of the run's labels on its log-odds;
- a share of the queries was misread: for them no image matches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldscope.eval.runs.read import read_finished
from fieldscope.eval.tuning.cutoff import LabelledQuery, labelled_split

Floats = NDArray[np.float64]

MEASURED = Path(__file__).with_name("promise_queries.json")
"""P(match) and labels of `agent` on the 40 validation queries of FieldNotes-Rerank; images below 0.001 that do not
match are left out."""

_LEAST = 1e-4
_STEPS = 50


@dataclass(frozen=True)
class Disturbance:
    """How a population differs from the run: standard deviations of the shifts of log-odds, of a query and of an image,
    and the shares of labels drawn again and of queries misread."""

    of_query: float = 0.7
    of_image: float = 0.7
    relabelled: float = 0.25
    misread: float = 0.0


def read_measured(path: Path = MEASURED) -> list[LabelledQuery]:
    """The queries of a run folder, or of a file such as `MEASURED`."""
    if path.is_dir():
        run = read_finished(path)
        return list(labelled_split(run.results, run.judgments).queries)
    return [
        LabelledQuery(np.array(row["p_match"]), np.array(row["matches"], dtype=np.float64), row["positives"])
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def simulate(
    measured: Sequence[LabelledQuery], size: int, disturbance: Disturbance, rng: np.random.Generator
) -> list[LabelledQuery]:
    """`size` queries that resemble the measured ones."""
    intercept, slope = fit_logistic(
        np.concatenate([log_odds(query.p_match) for query in measured]),
        np.concatenate([query.matches for query in measured]),
    )
    population = []
    for source in rng.integers(len(measured), size=size):
        query = measured[source]
        odds = log_odds(query.p_match) + rng.normal(0.0, disturbance.of_query)
        odds += rng.normal(0.0, disturbance.of_image, len(odds))
        again = rng.random(len(odds)) < disturbance.relabelled
        drawn = rng.random(len(odds)) < sigmoid(intercept + slope * odds)
        matches = np.where(again, drawn, query.matches > 0).astype(np.float64)
        if rng.random() < disturbance.misread:
            matches = np.zeros_like(matches)
        unranked = query.positives - int(query.matches.sum())
        population.append(LabelledQuery(sigmoid(odds), matches, int(matches.sum()) + unranked))
    return population


def fit_logistic(odds: Floats, matches: Floats) -> tuple[float, float]:
    """Intercept and slope of the labels' log-odds on `odds`, with a little weight on 0 and 1 (Newton's method)."""
    weights = np.array([0.0, 1.0])
    design = np.stack([np.ones_like(odds), odds], axis=1)
    for _ in range(_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (matches - p) - 0.1 * (weights - (0.0, 1.0))
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + 0.1 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def log_odds(p: Floats) -> Floats:
    """Log-odds, kept finite; of what has no probability, those of the least one."""
    known = np.clip(np.nan_to_num(p), _LEAST, 1.0 - _LEAST)
    return np.asarray(np.log(known / (1.0 - known)))


def sigmoid(odds: Floats) -> Floats:
    """The probability of log-odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))

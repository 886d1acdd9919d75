"""Whether a promised precision is kept, in simulated populations, and how often exact intervals hold the truth.

    python -m checks.promise                    # about five minutes
    python -m checks.promise --draws 100        # the reduced form
    python -m checks.promise --run runs/fieldnotes-rerank-validation/agent

Each population of 4,000 queries resembles a measured run (see `checks/population.py`). A draw labels some of its
queries, chooses a threshold for precision 0.9 at confidence 0.95 as `--precision` does, or refuses, and is compared
with the population: the promise is broken where the mean precision of the population's queries at that threshold lies
below 0.9. Recall is compared with the oracle cut, the threshold of the grid with the highest recall whose precision in
the population is 0.9 or more; a draw that refuses recalls nothing. Three populations are tried:

- `measured`: the run, disturbed;
- `refitted`: the same, but scale and intercept of P(match) are fitted to the very queries that choose the threshold,
  as after `fieldscope calibrate` on the same split;
- `boundary`: the share of misread queries is such that no threshold from 0.9 on keeps the promise, but barely so, and
  whole queries are wrong. This is where a test errs most.

Then images of simulated lists are drawn and labelled as `fieldscope label` does it, and as the review queue of the
workbench does. Exits with 1 unless the promise is
broken in at most 5 % of the draws of each population, and intervals miss the truth in at most 5 %, each plus two
standard errors; the recall from 160 measured queries is at least 60 % of the oracle cut's; and 28 queries, which carry
no such promise, are always refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from pathlib import Path

import numpy as np

from checks.population import MEASURED, Disturbance, Floats, fit_logistic, log_odds, read_measured, sigmoid, simulate
from fieldscope.core.errors import ConfigError
from fieldscope.eval.labels.draws import draw_next, draw_random
from fieldscope.eval.labels.estimates import report
from fieldscope.eval.labels.file import SIDES, LabelFile, ListedImage, RankedList
from fieldscope.eval.tuning.cutoff import GRID, LabelledQuery, LabelledSplit, passing_thresholds

PRECISION, CONFIDENCE = 0.9, 0.95
QUERIES = 4000
SIZES = (28, 40, 80, 160)
TOO_FEW = 28
LEAST_RECALL = 0.6
LABELS, JOINED = 40, 20
FOLLOWING = 20
"""Random draws of the review queue, and as many uncertain ones after them."""

ROUNDING = 1e-9


@dataclass(frozen=True)
class Outcome:
    """What became of the draws of one size from one population: shares of the draws that were refused and that broke
    the promise, and the mean recall over that of the oracle cut."""

    population: str
    size: int
    draws: int
    refused: float
    broken: float
    recall: float

    @property
    def kept(self) -> bool:
        """Whether the promise was broken as seldom as it says."""
        return self.broken <= 1.0 - CONFIDENCE + 2.0 * _standard_error(1.0 - CONFIDENCE, self.draws)


class Population:
    """Simulated queries, with their precision and recall at each threshold of the grid."""

    def __init__(self, name: str, queries: Sequence[LabelledQuery]) -> None:
        self.name = name
        self.split = LabelledSplit(tuple(queries))

    @cached_property
    def precision(self) -> Floats:
        """(thresholds,) mean over the queries for which something is kept; 1 where nothing is kept for any."""
        losses = self.split.losses
        return np.asarray(1.0 - np.nansum(losses, axis=0) / np.maximum(np.isfinite(losses).sum(axis=0), 1))

    @cached_property
    def recall(self) -> Floats:
        """(thresholds,) mean over the queries that have a match."""
        return np.asarray(np.nanmean(self.split.recalls, axis=0))

    @property
    def oracle_recall(self) -> float:
        """The highest recall of a threshold that keeps the promise; 0 where none does."""
        return float(np.max(self.recall[self.precision >= PRECISION], initial=0.0))

    def chosen(self, places: Sequence[int]) -> tuple[float, float] | None:
        """Precision and recall in the population after a draw of these queries; None where it is refused."""
        passing = np.flatnonzero(passing_thresholds(self.split.losses[places], PRECISION, CONFIDENCE))
        return (float(self.precision[passing[-1]]), float(self.recall[passing[-1]])) if len(passing) else None


class RefittedPopulation(Population):
    """One whose P(match) is fitted again to the queries of each draw."""

    def chosen(self, places: Sequence[int]) -> tuple[float, float] | None:
        queries = self.split.queries
        drawn = [queries[place] for place in places]
        odds = np.concatenate([log_odds(query.p_match) for query in drawn])
        intercept, slope = fit_logistic(odds, np.concatenate([query.matches for query in drawn]))

        def refitted(some: Sequence[LabelledQuery]) -> list[LabelledQuery]:
            return [replace(q, p_match=sigmoid(intercept + slope * log_odds(q.p_match))) for q in some]

        try:
            threshold = LabelledSplit(tuple(refitted(drawn))).cutoff(PRECISION, CONFIDENCE).threshold
        except ConfigError:
            return None
        # In the population the same images are kept by the threshold before the fit.
        before = float(sigmoid((log_odds(np.array(threshold)) - intercept) / slope))
        kept = self._padded >= before
        sizes = kept.sum(axis=1)
        hits = (kept & self._matching).sum(axis=1)
        precision = (hits[sizes > 0] / sizes[sizes > 0]).mean()
        positives = np.array([query.positives for query in queries])
        return float(precision), float((hits[positives > 0] / positives[positives > 0]).mean())

    @cached_property
    def _padded(self) -> Floats:
        """(queries, images) P(match); -1 behind the shorter lists."""
        return _padded([query.p_match for query in self.split.queries], -1.0)

    @cached_property
    def _matching(self) -> np.ndarray:
        return _padded([query.matches for query in self.split.queries], 0.0) > 0


def populations(measured: Sequence[LabelledQuery], seed: int) -> Iterator[Population]:
    """The three populations."""
    queries = simulate(measured, QUERIES, Disturbance(), np.random.default_rng(seed))
    yield Population("measured", queries)
    yield RefittedPopulation("refitted", queries)
    yield Population("boundary", boundary(queries, np.random.default_rng(seed)))


def boundary(queries: Sequence[LabelledQuery], rng: np.random.Generator) -> list[LabelledQuery]:
    """Queries of which so many are misread that no threshold from the promised precision on keeps the promise."""
    losses = LabelledSplit(tuple(queries)).losses[:, GRID >= PRECISION]
    losses = losses[:, np.isfinite(losses).any(axis=0)]
    order, kept_for = rng.permutation(len(queries)), np.isfinite(losses).sum(axis=0)
    more_lost = np.cumsum(np.nan_to_num(1.0 - losses[order]), axis=0)
    best = 1.0 - ((np.nansum(losses, axis=0) + more_lost) / kept_for).min(axis=1)
    misread = set(order[: int(np.argmax(best < PRECISION)) + 1].tolist())
    return [
        replace(query, matches=np.zeros_like(query.matches)) if place in misread else query
        for place, query in enumerate(queries)
    ]


def outcome(population: Population, size: int, draws: int, seed: int) -> Outcome:
    """Draw `size` queries of the population, with replacement, `draws` times."""
    rng = np.random.default_rng([seed, size])
    results = [population.chosen(rng.integers(QUERIES, size=size).tolist()) for _ in range(draws)]
    promised = [result for result in results if result is not None]
    oracle = population.oracle_recall
    return Outcome(
        population=population.name,
        size=size,
        draws=draws,
        refused=1.0 - len(promised) / draws,
        broken=sum(precision < PRECISION for precision, _ in promised) / draws,
        recall=sum(recall for _, recall in promised) / draws / oracle if oracle else 0.0,
    )


def coverage(queries: Sequence[LabelledQuery], draws: int, seed: int) -> dict[str, float]:
    """How often the intervals of `LABELS` labels of a list, half of them above P(match) 0.5, hold the truth: the share
    of matches above, and the number of matches below. A list has the images of `JOINED` queries."""
    rng = np.random.default_rng([seed, LABELS])
    held = dict.fromkeys(SIDES, 0)
    for number in range(draws):
        joined = [queries[place] for place in rng.integers(len(queries), size=JOINED)]
        p_match = np.concatenate([query.p_match for query in joined])
        matches = np.concatenate([query.matches for query in joined])
        images = tuple(ListedImage(image=str(place), p_match=float(p)) for place, p in enumerate(p_match))
        file = draw_random(LabelFile(RankedList(query="simulated", line=0.5, seed=number, images=images)), LABELS)
        for line in file.lines:
            file = file.labelled(line.image, "yes" if matches[int(line.image)] else "no")
        for side in report(file, CONFIDENCE):
            truth = int(sum(matches[int(listed.image)] for listed in file.ranked.side(side.side)))
            assert side.exact is not None and side.match_range is not None
            low, high = side.match_range
            held[side.side] += side.exact.low <= truth / side.images <= side.exact.high and low <= truth <= high
    return {side: count / draws for side, count in held.items()}


def queue_coverage(queries: Sequence[LabelledQuery], draws: int, seed: int) -> dict[str, float]:
    """How often the intervals from draws of the review queue hold the truth: a random sample and then uncertain images,
    all by their probabilities, with P(match) made wrong where it is sure, and marks that end after a random number of
    draws."""
    rng = np.random.default_rng([seed, FOLLOWING])
    held = dict.fromkeys(SIDES, 0)
    for number in range(draws):
        joined = [queries[place] for place in rng.integers(len(queries), size=JOINED)]
        p_match = sigmoid(2.0 * log_odds(np.concatenate([query.p_match for query in joined])))
        matches = np.concatenate([query.matches for query in joined])
        images = tuple(ListedImage(image=str(place), p_match=float(p)) for place, p in enumerate(p_match))
        file = LabelFile(RankedList(query="simulated", line=0.5, seed=number, images=images))
        file = draw_next(draw_random(file, FOLLOWING), FOLLOWING)
        marked = set(list(file.lines)[: int(rng.integers(FOLLOWING + 2, 2 * FOLLOWING + 1))])
        lines = tuple(
            line.model_copy(update={"label": "yes" if matches[int(line.image)] else "no"}) if line in marked else line
            for line in file.lines
        )
        for side in report(LabelFile(file.ranked, lines), CONFIDENCE):
            truth = float(np.mean([matches[int(listed.image)] for listed in file.ranked.side(side.side)]))
            low, high = side.anytime or (0.0, 1.0)
            held[side.side] += low - ROUNDING <= truth <= high + ROUNDING
    return {side: count / draws for side, count in held.items()}


def failures(outcomes: Sequence[Outcome], covered: dict[str, float], draws: int) -> list[str]:
    """What is out of bounds, a sentence each."""
    error = 2.0 * _standard_error(CONFIDENCE, draws)
    found = [f"{o.population}, {o.size} queries: broken in {o.broken:.1%} of the draws" for o in outcomes if not o.kept]
    found += [
        f"{o.population}, {o.size} queries: a recall of {o.recall:.1%} of the oracle cut's"
        for o in outcomes
        if o.population == "measured" and o.size == max(SIZES) and o.recall < LEAST_RECALL
    ]
    found += [
        f"{o.population}, {o.size} queries: refused in {o.refused:.1%} of the draws only"
        for o in outcomes
        if o.size <= TOO_FEW and o.refused < 1.0
    ]
    return found + [
        f"intervals {side} the line: hold the truth in {share:.1%} of the draws"
        for side, share in covered.items()
        if share < CONFIDENCE - error
    ]


def main() -> int:
    """Print the figures; 1 where one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=MEASURED, help="a finished run folder to resemble")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    measured = read_measured(options.run)
    print(f"{QUERIES:,} simulated queries, after {len(measured)} measured ones; {options.draws:,} draws")
    print(f"{'population':10} {'queries':>7} {'refused':>8} {'broken':>8} {'recall of the oracle cut':>25}")
    outcomes = []
    for population in populations(measured, options.seed):
        for size in SIZES:
            outcomes.append(one := outcome(population, size, options.draws, options.seed))
            recall = f"{one.recall:.1%}" if population.oracle_recall else "-"
            print(f"{one.population:10} {one.size:7} {one.refused:8.1%} {one.broken:8.1%} {recall:>25}", flush=True)
    queries = simulate(measured, QUERIES, Disturbance(), np.random.default_rng(options.seed))
    covered = coverage(queries, options.draws, options.seed)
    print(f"intervals of {LABELS} labels at {CONFIDENCE:.0%} hold the truth:")
    print(f"  precision above the line {covered['above']:.1%}, matches below it {covered['below']:.1%}")
    queued = queue_coverage(queries, options.draws, options.seed)
    print(f"intervals of the review queue at {CONFIDENCE:.0%} hold the truth:")
    print(f"  precision above the line {queued['above']:.1%}, share of matches below it {queued['below']:.1%}")
    named = {f"of the queue {side}": share for side, share in queued.items()}
    wrong = failures(outcomes, covered | named, options.draws)
    print("\n".join(wrong) or "all within their bounds")
    return 1 if wrong else 0


def _standard_error(share: float, draws: int) -> float:
    return sqrt(share * (1.0 - share) / draws)


def _padded(rows: Sequence[Floats], filling: float) -> Floats:
    """The rows, (rows, longest), filled up behind the shorter ones."""
    padded = np.full((len(rows), max(map(len, rows))), filling)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row
    return padded


if __name__ == "__main__":
    sys.exit(main())

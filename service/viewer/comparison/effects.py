"""The viewer's runs as the record that `fieldscope compare` makes, over the queries that they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from fieldscope.eval.measures.run_comparison import ScoredComparison, compare_values
from fieldscope.eval.reported import shared, value_name
from fieldscope.eval.runs.scored import ScoredRun
from fieldscope.service.viewer.comparison.sides import Common, Side
from fieldscope.service.viewer.runs.overview import totals

EVERY_TWO = 4
"""Up to this many runs, every pair is tested; of more runs, each is tested against the first."""


def scored_runs(sides: Sequence[Side], common: Common) -> list[ScoredRun]:
    """The runs with their scores and costs over what they have in common."""
    return [_scored_run(side, common) for side in sides]


def compare_sides(runs: Sequence[ScoredRun]) -> ScoredComparison:
    """The comparison of runs that share at least one scored query."""
    every_two = len(runs) <= EVERY_TWO
    return compare_values(
        runs,
        lambda run, query, metric: run.values[query][value_name(metric)],
        queries=[*runs[0].values],
        metrics=shared(run.reported for run in runs).compared,
        couples=[(a, b) for a, b in combinations(range(len(runs)), 2) if a == 0 or every_two],
    )


def _scored_run(side: Side, common: Common) -> ScoredRun:
    configuration = side.run.configuration
    digests = [side.run.digests[query] for query in common.queries]
    sums = totals(digests)
    return ScoredRun(
        name=side.name,
        folder=side.run.folder,
        strategy=side.run.strategy,
        benchmark=(configuration.benchmark.name, configuration.benchmark.split),
        task=configuration.benchmark.fingerprint,
        lmm=configuration.lmm,
        requests={digest.query_id: (digest.text,) for digest in digests},
        judgments={},
        values={query: side.run.digests[query].scores for query in common.scored},
        groups={},
        spent=replace(sums.usage, wall=sums.usage.seconds),
        asked=sums.usage.calls,
        unknown=sums.usage.unknown,
        ended=sums.ended,
        reported=side.run.reported,
    )

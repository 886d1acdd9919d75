"""What the viewer's runs gain over each other, as the record that `fieldscope compare` makes, too.

Statistics are worked out once and kept, because many pages share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from fieldscope.eval.measures.paired import EVEN, Paired, holm
from fieldscope.eval.measures.run_comparison import METRICS, Contrast, Effect, Pair, per_query
from fieldscope.eval.runs.scored import ScoredRun, Spent
from fieldscope.service.viewer.comparison.sides import Common, Side
from fieldscope.service.viewer.runs.metrics import Column, Mean, chance, means
from fieldscope.service.viewer.runs.overview import totals

EVERY_TWO = 4
"""Up to this many runs, every pair is tested; of more runs, each is tested against the first."""


def scored_runs(sides: Sequence[Side], common: Common) -> list[ScoredRun]:
    """The runs with their scores and costs over what they have in common."""
    return [_scored_run(side, common) for side in sides]


def compare_sides(runs: Sequence[ScoredRun]) -> Contrast:
    """Runs that share at least one scored query. P values are adjusted for all pairs that are tested in a metric. How
    small a difference could have been detected is left out."""
    couples = list(combinations(runs, 2)) if len(runs) <= EVERY_TWO else [(runs[0], other) for other in runs[1:]]
    effects: list[dict[str, Effect]] = [{} for _ in couples]
    for metric in METRICS:
        tests = _tests(runs, couples, metric)
        for own, test, p in zip(effects, tests, holm([test.p for test in tests]), strict=True):
            own[metric] = Effect(test, p, detectable=None)
    pairs = [
        Pair(a, b, own, {}, {metric: _ordered(a, b, metric) for metric in METRICS})
        for (a, b), own in zip(couples, effects, strict=True)
    ]
    return Contrast(tuple(runs), METRICS, tuple(pairs), currency=None)


def run_means(runs: Sequence[ScoredRun]) -> Mapping[str, Mapping[str, Mean]]:
    """Run -> metric -> its mean with its interval, over the scored queries that all have."""
    keys = [(run, metric) for run in runs for metric in METRICS]
    found: dict[str, dict[str, Mean]] = {run.name: {} for run in runs}
    for (run, metric), mean in zip(keys, means([_values(run, metric) for run, metric in keys]), strict=True):
        found[run.name][metric] = mean
    return found


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
        spent=Spent(sums.calls, sums.prompt_tokens, sums.completion_tokens, sums.seconds, wall=sums.seconds),
        asked=sums.calls,
        unknown=sums.unknown,
        ended=sums.ended,
    )


def _tests(runs: Sequence[ScoredRun], couples: Sequence[tuple[ScoredRun, ScoredRun]], metric: str) -> list[Paired]:
    values = {run.name: _values(run, metric) for run in runs}
    gains: list[Column] = [
        tuple(its - own for own, its in zip(values[a.name], values[b.name], strict=True)) for a, b in couples
    ]
    found = means([*values.values(), *gains])
    of_run = dict(zip(values, found, strict=False))
    return [
        _paired(of_run[a.name], of_run[b.name], mean, own)
        for (a, b), mean, own in zip(couples, found[len(values) :], gains, strict=True)
    ]


def _paired(a: Mean, b: Mean, gain: Mean, gains: Column) -> Paired:
    return Paired(
        queries=len(gains),
        mean_a=a.value,
        mean_b=b.value,
        difference=gain.value,
        low=gain.low,
        high=gain.high,
        p=chance(gains),
        wins=sum(own > EVEN for own in gains),
        ties=sum(abs(own) <= EVEN for own in gains),
        losses=sum(own < -EVEN for own in gains),
    )


def _values(run: ScoredRun, metric: str) -> Column:
    return tuple(scores[per_query(metric)] for scores in run.values.values())


def _ordered(a: ScoredRun, b: ScoredRun, metric: str) -> dict[str, float]:
    """What B gains in each query, largest gain first; equal ones by query id."""
    name = per_query(metric)
    gains = {query: b.values[query][name] - a.values[query][name] for query in a.values}
    return dict(sorted(gains.items(), key=lambda item: (-item[1], item[0])))

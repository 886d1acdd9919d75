"""A run in a few figures: metrics with intervals, the gain over the first stage's order, and costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fieldscope.agent.usage import Usage
from fieldscope.eval.measures.paired import EVEN, Column, Mean, means
from fieldscope.eval.reported import mean_name, reported_as
from fieldscope.service.viewer.runs.digest import QueryDigest
from fieldscope.service.viewer.runs.run import Run


@dataclass(frozen=True)
class Standing:
    """The mean of a metric over `queries`, its value in the first stage's order, and the gain."""

    queries: int
    now: Mean
    before: float
    gain: Mean


@dataclass(frozen=True)
class Totals:
    """Sums over queries. `helped`, `hurt` and `even` count scored queries by their gain in the headline over the first
    stage, `ended` those on which the budget ran out. `seconds` is the time of the answers when they were first given,
    summed over calls."""

    queries: int
    scored: int
    helped: int
    hurt: int
    even: int
    usage: Usage
    ended: int


@dataclass(frozen=True)
class NothingSaid:
    """Of how many queries with a match, and without one, nothing was said to match."""

    unmatched: int
    rightly: int
    matched: int
    wrongly: int


def nothing_said(digests: Sequence[QueryDigest]) -> NothingSaid | None:
    """How often nothing was said to match, of the queries that have judgments; None where that was not decided."""
    if all(digest.nothing is None for digest in digests):
        return None
    unmatched = [bool(digest.nothing) for digest in digests if digest.positives == 0]
    matched = [bool(digest.nothing) for digest in digests if digest.positives]
    return NothingSaid(len(unmatched), sum(unmatched), len(matched), sum(matched))


def standings(digests: Iterable[QueryDigest], metrics: Sequence[str] = ()) -> dict[str, Standing]:
    """Name of the mean -> its standing, over the scored queries, in these metrics or, where there are none, in those
    that the benchmark's results are reported in; empty if nothing could be scored."""
    scored = [digest for digest in digests if digest.scores]
    if not scored:
        return {}
    metrics = metrics or reported_as(scored[0].reported).values
    columns: list[Column] = []
    metrics = [metric for metric in metrics if metric in scored[0].scores]
    for metric in metrics:
        columns.append(tuple(digest.scores[metric] for digest in scored))
        columns.append(tuple(digest.scores[metric] - digest.prior_scores[metric] for digest in scored))
    found = means(columns)
    return {
        mean_name(metric): Standing(len(scored), now, now.value - gain.value, gain)
        for metric, now, gain in zip(metrics, found[::2], found[1::2], strict=True)
    }


def means_of(per_query: Mapping[str, Mapping[str, float | None]]) -> dict[str, Mean]:
    """Metric -> mean with its interval, from the values per query in `metrics.json`."""
    scored = [values for values in per_query.values() if values.get("positives")]
    names = [name for name in (scored[0] if scored else ()) if name != "positives"]
    columns: dict[str, Column] = {}
    for name in names:
        column = [value for values in scored if (value := values.get(name)) is not None]
        if len(column) == len(scored):
            columns[name] = tuple(column)
    return dict(zip(columns, means([*columns.values()]), strict=True))


def totals(digests: Sequence[QueryDigest]) -> Totals:
    """The sums over these queries."""
    gains = [digest.gain for digest in digests if digest.gain is not None]
    return Totals(
        queries=len(digests),
        scored=len(gains),
        helped=sum(gain > EVEN for gain in gains),
        hurt=sum(gain < -EVEN for gain in gains),
        even=sum(abs(gain) <= EVEN for gain in gains),
        usage=sum((digest.usage for digest in digests), Usage()),
        ended=sum(digest.ended is not None for digest in digests),
    )


def expected(run: Run) -> int | None:
    """The number of queries of an unfinished run; None if its folder does not say."""
    return None if run.inputs is None else sum(line.query is not None for line in run.inputs.queries)

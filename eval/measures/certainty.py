"""How sure the figures of an evaluation are: intervals of its means, and how many queries a difference needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fieldscope.eval.measures.paired import Mean, means
from fieldscope.eval.measures.run_comparison import Effect, compare_values
from fieldscope.eval.types import RunSummary


@dataclass(frozen=True)
class Certainty:
    """Of one run: its means with 95 % bootstrap intervals, by their names, and what it changes against the first run in
    the headline. `effect` is None for the first run, and where the runs are over different queries."""

    means: Mapping[str, Mean]
    effect: Effect | None = None

    def payload(self) -> dict[str, Any]:
        """For programs: an interval for each mean; the difference with its interval, p after Holm, the smallest true
        difference that the test detects, and the number of queries that a difference of this size needs."""
        intervals = {name: [mean.low, mean.high] for name, mean in self.means.items()}
        if self.effect is None:
            return {"intervals": intervals} if intervals else {}
        test = self.effect.test
        return {
            "intervals": intervals,
            "against_first": {
                "difference": test.difference,
                "interval": [test.low, test.high],
                "p": self.effect.p_holm,
                "detectable": self.effect.detectable,
                "queries_needed": self.effect.needed,
            },
        }


def certainties(summaries: Sequence[RunSummary]) -> list[Certainty]:
    """The certainty of each run of one benchmark, without the means that a run has for fewer than two queries."""
    names = [name for name in summaries[0].values if all(len(run.values.get(name, {})) > 1 for run in summaries)]
    if not names:
        return [Certainty({})] * len(summaries)
    own = [dict(zip(names, means([tuple(run.values[n].values()) for n in names]), strict=True)) for run in summaries]
    return [Certainty(of, effect) for of, effect in zip(own, _effects(summaries), strict=True)]


def _effects(summaries: Sequence[RunSummary]) -> list[Effect | None]:
    first, *others = summaries
    headline = first.reported.mean
    queries = [*first.values.get(headline, {})]
    if not queries or any(run.values.get(headline, {}).keys() != set(queries) for run in others):
        return [None] * len(summaries)
    found = compare_values(
        summaries,
        lambda run, query, metric: run.values[metric][query],
        queries=queries,
        metrics=[headline],
        couples=[(0, place) for place in range(1, len(summaries))],
    )
    return [None, *(pair.effects[headline] for pair in found.pairs)]

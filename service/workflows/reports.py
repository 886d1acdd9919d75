"""Runs and evaluations as a Python program and a notebook want them: metrics with intervals, and rankings by query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import unknown_name
from fieldscope.eval.measures.paired import bootstrap_interval
from fieldscope.eval.measures.run_comparison import compare_runs
from fieldscope.eval.reported import RIGHTLY, value_name
from fieldscope.service.workflows.notebook import table
from fieldscope.service.workflows.ranking import Ranking

if TYPE_CHECKING:
    from fieldscope.agent.types import RerankResult
    from fieldscope.core.types import ImageSource
    from fieldscope.eval.measures.run_comparison import Effect
    from fieldscope.eval.runs.scored import ScoredRun


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, between 0 and 1, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, eq=False)
class LoadedRun(Mapping[str, Ranking]):
    """A finished run: query ids, each with its ranking; a table of metrics in a notebook.

    `scored` has values per query, judgments and costs, `results` everything that led to each ranking.
    """

    scored: ScoredRun = field(repr=False)
    results: Mapping[str, RerankResult] = field(repr=False)

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.scored.name

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.scored.folder

    def metric(self, name: str) -> Estimate:
        """The mean of a metric (`AP@50`, `nDCG@10`, `MRR` ...) over the queries that have something to find; that of
        `rightly nothing` over those that have nothing.

        Any kind of metric has any cut-off (`AP@5`, `R@20`). Raises `ConfigError` for a metric that the run does not
        have, and where no query has anything to find.
        """
        from fieldscope.eval.measures.further import with_metrics

        if name in self.scored.nothing:
            values = [*self.scored.nothing[name].values()]
        else:
            self.scored.require_values()
            scored = with_metrics(self.scored, (name,))
            known = set.intersection(*(set(values) for values in scored.values.values()))
            if value_name(name) not in known:
                raise ConfigError(unknown_name("metric", name, known))
            values = [values[value_name(name)] for values in scored.values.values()]
        low, high = bootstrap_interval(values)
        return Estimate(sum(values) / len(values), low, high)

    def __getitem__(self, query_id: str) -> Ranking:
        return Ranking(self.results[query_id], self._images)

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        benchmark, split = self.scored.benchmark
        return f"LoadedRun({self.name!r} on {benchmark!r} ({split}), {len(self)} queries, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return _html([self])

    @cached_property
    def _images(self) -> ImageSource:
        """The images of the run; none where they are gone."""
        from fieldscope.retrieval.collection import FilesCollection
        from fieldscope.retrieval.opening import reopen_collection

        try:
            return reopen_collection(json.loads((self.folder / "collection.json").read_bytes()))
        except (OSError, ValueError, ConfigError):
            return FilesCollection({})


@dataclass(frozen=True, eq=False)
class Evaluation(Sequence[LoadedRun]):
    """Strategies on one benchmark, in the order in which they were named. The first is the baseline."""

    runs: tuple[LoadedRun, ...]

    def effect(self, strategy: str, metric: str | None = None) -> Effect:
        """What a strategy changes against the first in a metric, by default the benchmark's headline: `test` has the
        difference with its 95 % interval and p by a paired randomisation test, `p_holm` is p with the other strategies
        considered.

        Raises `ConfigError` for a strategy that is not here, or is the first.
        """
        effects = self._effects(metric or self.runs[0].scored.reported.headline)
        if strategy not in effects:
            raise ConfigError(unknown_name("strategy", strategy, effects))
        return effects[strategy]

    def __getitem__(self, place: int | str) -> LoadedRun:  # type: ignore[override]  # by place, or by name
        if isinstance(place, int):
            return self.runs[place]
        for run in self.runs:
            if run.name == place:
                return run
        raise KeyError(place)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        reported = self.runs[0].scored.reported
        means = (
            f"{run.name}: {reported.mean} {run.metric(reported.headline)}" if run.scored.values else run.name
            for run in self.runs
        )
        return f"Evaluation({', '.join(means)})"

    def _repr_html_(self) -> str:
        compared = len(self.runs) > 1 and bool(self.runs[0].scored.values)
        return _html(self.runs, self._effects(self.runs[0].scored.reported.headline) if compared else {})

    def _effects(self, metric: str) -> dict[str, Effect]:
        compared = compare_runs([run.scored for run in self.runs], [metric])
        first = self.runs[0].scored
        return {pair.b.name: pair.effects[metric] for pair in compared.pairs if pair.a is first}


def load_run(folder: str | Path) -> LoadedRun:
    """A run that `fieldscope eval` or `evaluate` wrote: the folder of one strategy. Raises `ConfigError` where it holds
    no finished run."""
    from fieldscope.eval.runs.read import read_results
    from fieldscope.eval.runs.scored import read_scored

    folder = Path(folder)
    return LoadedRun(read_scored(folder), read_results(folder))


def _html(runs: Sequence[LoadedRun], effects: Mapping[str, Effect] | None = None) -> str:
    benchmark, split = runs[0].scored.benchmark
    reported = runs[0].scored.reported
    gain = [f"{reported.mean} vs. first"] if effects else []
    matched = bool(runs[0].scored.values)
    means = dict(zip(reported.overview, (reported.headline, *reported.overview[1:]), strict=True)) if matched else {}
    means |= {RIGHTLY: RIGHTLY} if any(RIGHTLY in run.scored.nothing for run in runs) else {}
    columns = ["strategy", *means, *gain, "calls", "tokens"]
    rows = []
    for run in runs:
        gained = (effects or {}).get(run.name)
        spent = run.scored.spent
        rows.append(
            [
                run.name,
                *("–" if m == RIGHTLY and m not in run.scored.nothing else str(run.metric(m)) for m in means.values()),
                *([_gain(gained) if gained else "–"] if effects else []),
                f"{spent.calls:,}",
                f"{spent.tokens:,}",
            ]
        )
    caption = f"{benchmark} ({split}), {len(runs[0])} queries{'; 95 % intervals' if means else ''}"
    return table(columns, rows, len(rows), caption)


def _gain(effect: Effect) -> str:
    test = effect.test
    return (
        f"{100 * test.difference:+.1f} points [{100 * test.low:+.1f}, {100 * test.high:+.1f}], p = {effect.p_holm:.3g}"
    )
